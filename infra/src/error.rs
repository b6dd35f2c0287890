//! The one error of every resource kind: which call failed, on what, in which region, and what sort of failure it is.
//! The sort decides whether the engine tries again; the code and message of AWS are kept as the source.

use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde::Serialize;

/// What sort of failure this is, from the error code (and, where AWS reuses one code, the message).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Too many calls.
    Throttled,
    /// Something just created is not visible everywhere yet: a role, a security group, a key.
    EventuallyConsistent,
    /// The resource, or one that uses it, is in the middle of something.
    Conflict,
    /// No answer, or a server-side failure.
    Unavailable,
    /// Credentials or permissions.
    Denied,
    /// The request itself is refused.
    Invalid,
    /// Anything else.
    Other,
}

impl Class {
    /// How long it makes sense to try again; `None` when the failure is final.
    pub fn patience(self) -> Option<Duration> {
        match self {
            Class::Throttled | Class::Unavailable => Some(Duration::from_secs(60)),
            Class::EventuallyConsistent => Some(Duration::from_secs(120)),
            // Network interfaces of Lambda functions keep their security group for up to 45 minutes.
            Class::Conflict => Some(Duration::from_secs(60 * 60)),
            Class::Denied | Class::Invalid | Class::Other => None,
        }
    }
}

/// A call to AWS that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} `{subject}` in {region}")]
pub struct KindError {
    /// The API operation.
    pub operation: &'static str,
    /// What it was about: a name or an id.
    pub subject: String,
    /// The region whose endpoint was called.
    pub region: String,
    /// What sort of failure it is.
    pub class: Class,
    /// What AWS said.
    #[source]
    pub cause: Cause,
}

impl KindError {
    /// From an SDK error. [`crate::kind::Site::fail`] is shorter.
    pub fn from_sdk<E>(
        operation: &'static str,
        subject: &str,
        region: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let cause = Cause::from_sdk(&error);
        let class = match &error {
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
                Class::Unavailable
            }
            _ => match classify(cause.code.as_deref(), &cause.message) {
                // A gateway's answer, or an emulator's: no code, but the status says whose fault it is.
                Class::Other
                    if error
                        .raw_response()
                        .is_some_and(|raw| raw.status().is_server_error()) =>
                {
                    Class::Unavailable
                }
                class => class,
            },
        };
        KindError {
            operation,
            subject: subject.to_owned(),
            region: region.to_owned(),
            class,
            cause,
        }
    }

    /// The AWS error code, when there is one.
    pub fn code(&self) -> Option<&str> {
        self.cause.code.as_deref()
    }

    /// The whole story on one line: the call and its cause.
    pub fn chain(&self) -> String {
        format!("{self}: {}", self.cause)
    }
}

/// What AWS said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The error code, `ResourceConflictException` for example.
    pub code: Option<String>,
    /// The message.
    pub message: String,
}

impl Cause {
    fn from_sdk<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
    {
        match error {
            SdkError::ServiceError(service) => {
                let meta = service.err();
                Cause {
                    code: meta.code().map(str::to_owned),
                    message: meta.message().map_or_else(|| whole_chain(meta), str::to_owned),
                }
            }
            SdkError::TimeoutError(_) => Cause {
                code: None,
                message: "no answer in time".into(),
            },
            SdkError::DispatchFailure(failure) => {
                let why = failure
                    .as_connector_error()
                    .map_or_else(|| "no connection".to_owned(), |e| whole_chain(e));
                Cause {
                    code: None,
                    message: why,
                }
            }
            SdkError::ResponseError(_) => Cause {
                code: None,
                message: "the answer could not be read".into(),
            },
            other => Cause {
                code: None,
                message: other.to_string(),
            },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Cause {}

fn whole_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The error code of an SDK error.
pub fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Turns an error with one of `codes` into `None`: how a kind says "it does not exist".
pub fn absent<T, E: ProvideErrorMetadata, R>(
    result: Result<T, SdkError<E, R>>,
    codes: &[&str],
) -> Result<Option<T>, SdkError<E, R>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code(&error).is_some_and(|code| codes.contains(&code)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Messages of the documented "not there yet" answers that share their code with real mistakes.
const NOT_YET: &[&str] = &[
    "cannot be assumed by Lambda",
    "does not have permissions to call",
    "execution role does not have permissions",
    "KMS key is invalid for CreateGrant",
    "Neither the global service principal states.amazonaws.com",
    "is not authorized to create managed-rule",
    "must allow AWS EventBridge Scheduler to assume the role",
    "Invalid principal in policy",
    "not authorized to perform: sts:AssumeRole",
    "throttled by EC2",
];

/// Sorts an error code.
pub fn classify(code: Option<&str>, message: &str) -> Class {
    if NOT_YET.iter().any(|text| message.contains(text)) {
        return Class::EventuallyConsistent;
    }
    let Some(code) = code else { return Class::Other };
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "SlowDown"
        | "ProvisionedThroughputExceededException"
        | "PriorRequestNotComplete" => Class::Throttled,
        "DependencyViolation"
        | "DeleteConflict"
        | "ResourceConflictException"
        | "ResourceInUseException"
        | "ResourceInUse"
        | "ReplicatedWriteConflictException"
        | "LimitExceededException"
        | "ConflictException"
        | "Conflict"
        | "OperationAborted"
        | "OperationAbortedException"
        | "ConcurrentModification"
        | "ConcurrentModificationException"
        | "StateMachineDeleting"
        | "BucketNotEmpty"
        | "HostedZoneNotEmpty"
        | "KMSInvalidStateException"
        | "InvalidDBClusterStateFault"
        | "InvalidDBInstanceState"
        | "InvalidGlobalClusterStateFault"
        | "InvalidDBSubnetGroupStateFault"
        | "InvalidDBParameterGroupState"
        | "InvalidVpcEndpoint.State"
        | "IncorrectState" => Class::Conflict,
        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServiceError"
        | "ServiceException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "DependencyTimeoutException" => Class::Unavailable,
        "UnauthorizedOperation"
        | "AuthFailure"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "ExpiredTokenException" => Class::Denied,
        code if code.starts_with("AccessDenied") => Class::Denied,
        // A kind turns "not found" into `None` where it observes; where it writes, the thing is not visible yet.
        code if code.contains("NotFound") || code.starts_with("NoSuch") => Class::EventuallyConsistent,
        code if code.starts_with("Invalid")
            || code.starts_with("Validation")
            || code.starts_with("Malformed") =>
        {
            Class::Invalid
        }
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_with_two_meanings_is_told_apart_by_its_message() {
        let code = Some("InvalidParameterValueException");
        assert_eq!(
            classify(
                code,
                "The role defined for the function cannot be assumed by Lambda."
            ),
            Class::EventuallyConsistent
        );
        assert_eq!(classify(code, "Handler is too long"), Class::Invalid);
    }

    #[test]
    fn codes_are_sorted() {
        for (code, class) in [
            ("Throttling", Class::Throttled),
            ("DependencyViolation", Class::Conflict),
            ("InvalidSubnetID.NotFound", Class::EventuallyConsistent),
            ("NoSuchEntity", Class::EventuallyConsistent),
            ("AccessDeniedException", Class::Denied),
            ("InvalidParameterCombination", Class::Invalid),
            ("InternalServerError", Class::Unavailable),
            ("Strange", Class::Other),
        ] {
            assert_eq!(classify(Some(code), ""), class, "{code}");
        }
    }

    #[test]
    fn final_failures_are_not_tried_again() {
        assert!(Class::Denied.patience().is_none() && Class::Invalid.patience().is_none());
        assert!(Class::Throttled.patience().is_some());
    }
}
