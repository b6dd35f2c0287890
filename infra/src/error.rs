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
    /// A policy does not allow it. Policies take seconds to be seen everywhere, so it may pass.
    Forbidden,
    /// Credentials that are wrong, or no right at all.
    Denied,
    /// A limit of the account is used up: a person must ask AWS for more.
    Quota,
    /// The request itself is refused.
    Invalid,
    /// AWS keeps it, for hours: only a run that long after can do it.
    HeldBack,
    /// Anything else.
    Other,
}

impl Class {
    /// How long it makes sense to try again; `None` when the failure is final.
    ///
    /// It is time since the first failure in a row, and the engine's budget ends it sooner: what is left then is waited for
    /// by the next run.
    pub fn patience(self) -> Option<Duration> {
        match self {
            // API Gateway deletes one API per account in 30 seconds, and makes one domain name in 30 seconds; EC2 throttles
            // Lambda for minutes.
            Class::Throttled => Some(Duration::from_secs(10 * 60)),
            Class::Unavailable => Some(Duration::from_secs(60)),
            Class::EventuallyConsistent => Some(Duration::from_secs(120)),
            // Network interfaces of Lambda functions keep their security group for up to 45 minutes.
            Class::Conflict => Some(Duration::from_secs(60 * 60)),
            Class::Forbidden => Some(Duration::from_secs(10)),
            Class::Denied | Class::Quota | Class::Invalid | Class::HeldBack | Class::Other => None,
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

    /// What AWS, or a kind itself, refuses in other ways than by an error answer.
    pub fn refused(
        operation: &'static str,
        subject: &str,
        region: &str,
        code: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        let message = message.into();
        KindError {
            operation,
            subject: subject.to_owned(),
            region: region.to_owned(),
            class: classify(code, &message),
            cause: Cause {
                code: code.map(str::to_owned),
                message,
            },
        }
    }

    /// This kind cannot be deleted by its id alone.
    pub(crate) fn unsupported(kind: &'static str, id: &str, region: &str) -> Self {
        KindError {
            operation: "delete by id",
            subject: id.to_owned(),
            region: region.to_owned(),
            class: Class::Invalid,
            cause: Cause {
                code: None,
                message: format!("a {kind} cannot be deleted by its id alone"),
            },
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

/// Messages of documented answers that share their code with real mistakes, and what they mean. The first match counts.
const MESSAGES: &[(&str, Class)] = &[
    // Lambda: InvalidParameterValueException while a new role, its policies or a grant on its key are not seen everywhere.
    ("cannot be assumed by Lambda", Class::EventuallyConsistent),
    ("does not have permissions to call", Class::EventuallyConsistent),
    (
        "execution role does not have permissions",
        Class::EventuallyConsistent,
    ),
    ("KMS key is invalid for CreateGrant", Class::EventuallyConsistent),
    // Lambda: EC2 throttles the making of its network interfaces.
    ("throttled by EC2", Class::Throttled),
    // Lambda: the update before this one is not finished.
    ("An update is in progress for resource", Class::Conflict),
    ("The operation cannot be performed at this time", Class::Conflict),
    // Step Functions, Scheduler, API Gateway, RDS: a new role is not seen yet.
    (
        "Neither the global service principal states.amazonaws.com",
        Class::EventuallyConsistent,
    ),
    (
        "is not authorized to create managed-rule",
        Class::EventuallyConsistent,
    ),
    (
        "is not authorized to access the Log Destination",
        Class::EventuallyConsistent,
    ),
    (
        "must allow AWS EventBridge Scheduler to assume the role",
        Class::EventuallyConsistent,
    ),
    (
        "role ARN does not have required permissions",
        Class::EventuallyConsistent,
    ),
    (
        "CloudWatch Logs role ARN must be set",
        Class::EventuallyConsistent,
    ),
    (
        "not authorized to perform: sts:AssumeRole",
        Class::EventuallyConsistent,
    ),
    // S3, KMS, SNS, Secrets Manager: a policy names a role that is not seen yet.
    ("Invalid principal in policy", Class::EventuallyConsistent),
    (
        "contains a statement with one or more invalid principals",
        Class::EventuallyConsistent,
    ),
    ("Policy statement action out of service scope", Class::Invalid),
    // S3: versioning or the other bucket were made a moment ago.
    ("Destination bucket must exist", Class::EventuallyConsistent),
    (
        "Destination bucket must have versioning enabled",
        Class::EventuallyConsistent,
    ),
    (
        "Versioning must be 'Enabled' on the bucket",
        Class::EventuallyConsistent,
    ),
    (
        "A conflicting conditional operation is currently in progress",
        Class::Conflict,
    ),
    // DynamoDB: `LimitExceededException` for ten control-plane operations at once; other services use the code for quotas.
    ("Subscriber limit exceeded", Class::Throttled),
    ("Too many operations for a given subscriber", Class::Throttled),
    ("simultaneous", Class::Throttled),
    // RDS: the cluster goes on being a member, or an instance being there, for a while.
    ("This cluster is a part of a global cluster", Class::Conflict),
    (
        "Cluster cannot be deleted, it still contains DB instances",
        Class::Conflict,
    ),
    ("is not empty", Class::Conflict),
    // Secrets Manager: one change of a replica at a time; a deleted secret is gone only after its time.
    ("currently being replicated", Class::Conflict),
    ("marked for deletion", Class::Conflict),
    ("scheduled for deletion", Class::Conflict),
    // API Gateway: the API is being changed, or the certificate of a domain name is not seen yet.
    (
        "Unable to complete operation due to concurrent modification",
        Class::Conflict,
    ),
    ("The certificate has not been issued", Class::EventuallyConsistent),
];

/// Sorts an error code.
pub fn classify(code: Option<&str>, message: &str) -> Class {
    if let Some((_, class)) = MESSAGES.iter().find(|(text, _)| message.contains(text)) {
        return *class;
    }
    let Some(code) = code else { return Class::Other };
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "Throttled"
        | "TooManyRequestsException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "BandwidthLimitExceeded"
        | "EC2ThrottledException"
        | "Client.RequestLimitExceeded"
        | "ProvisionedThroughputExceededException"
        // Route 53 works on one change of a zone at a time, five calls a second for the whole account.
        | "PriorRequestNotComplete" => Class::Throttled,
        "DependencyViolation"
        | "DeleteConflict"
        | "EntityTemporarilyUnmodifiable"
        | "ResourceConflictException"
        | "ResourceInUseException"
        | "ResourceInUse"
        | "ResourceNotReadyException"
        | "TableInUseException"
        | "ReplicatedWriteConflictException"
        | "TransactionConflictException"
        | "RequestInProgressException"
        | "ConflictException"
        | "Conflict"
        | "OperationAborted"
        | "OperationAbortedException"
        | "ConcurrentModification"
        | "ConcurrentModificationException"
        | "ConcurrentAccess"
        | "ConcurrentAccessException"
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
        | "IncorrectState"
        | "InvalidNetworkInterface.InUse" => Class::Conflict,
        "InternalError"
        | "InternalFailure"
        | "InternalException"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalServiceError"
        | "InternalServiceFault"
        | "InternalServiceException"
        | "KMSInternalException"
        | "ServiceException"
        | "ServiceFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "ServiceUnavailableFault"
        | "Unavailable"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "DependencyTimeoutException" => Class::Unavailable,
        "UnauthorizedOperation" => Class::Forbidden,
        "AuthFailure"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotSignedUp"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "ExpiredTokenException" => Class::Denied,
        "LimitExceeded"
        | "LimitExceededException"
        | "ServiceQuotaExceededException"
        | "ServiceLimitExceeded"
        | "TooManyBuckets"
        | "TooManyHostedZones"
        | "TooManyHealthChecks"
        | "StateMachineLimitExceeded"
        | "CodeStorageExceededException"
        | "DBClusterQuotaExceededFault"
        | "DBSubnetGroupQuotaExceeded"
        | "GlobalClusterQuotaExceededFault"
        | "InstanceQuotaExceeded"
        | "StorageQuotaExceeded" => Class::Quota,
        code if code.starts_with("AccessDenied") || code.starts_with("AuthorizationError") => Class::Forbidden,
        // `VpcLimitExceeded`, `AddressLimitExceeded` and the like of EC2.
        code if code.ends_with("LimitExceeded") || code.ends_with("QuotaExceeded") => Class::Quota,
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

    /// What AWS documents, and what others ran into, service by service.
    const DOCUMENTED: &[(&str, &str, &str, Class)] = &[
        (
            "iam",
            "NoSuchEntity",
            "The role with name x cannot be found.",
            Class::EventuallyConsistent,
        ),
        (
            "iam",
            "DeleteConflict",
            "Cannot delete entity, must detach all policies first.",
            Class::Conflict,
        ),
        ("iam", "ConcurrentModification", "", Class::Conflict),
        (
            "iam",
            "LimitExceeded",
            "Cannot exceed quota for RolesPerAccount: 1000",
            Class::Quota,
        ),
        (
            "iam",
            "MalformedPolicyDocument",
            "Syntax errors in policy.",
            Class::Invalid,
        ),
        (
            "lambda",
            "InvalidParameterValueException",
            "The role defined for the function cannot be assumed by Lambda.",
            Class::EventuallyConsistent,
        ),
        (
            "lambda",
            "InvalidParameterValueException",
            "The provided execution role does not have permissions to call CreateNetworkInterface on EC2",
            Class::EventuallyConsistent,
        ),
        (
            "lambda",
            "InvalidParameterValueException",
            "Lambda was unable to configure access to your environment variables because the KMS key is invalid for CreateGrant.",
            Class::EventuallyConsistent,
        ),
        (
            "lambda",
            "InvalidParameterValueException",
            "Your request has been throttled by EC2, please make sure you have enough API rate limit.",
            Class::Throttled,
        ),
        (
            "lambda",
            "InvalidParameterValueException",
            "Handler is too long",
            Class::Invalid,
        ),
        (
            "lambda",
            "ResourceConflictException",
            "The operation cannot be performed at this time. An update is in progress for resource: arn",
            Class::Conflict,
        ),
        (
            "lambda",
            "TooManyRequestsException",
            "Rate exceeded",
            Class::Throttled,
        ),
        ("lambda", "CodeStorageExceededException", "", Class::Quota),
        (
            "ec2",
            "RequestLimitExceeded",
            "Request limit exceeded.",
            Class::Throttled,
        ),
        (
            "ec2",
            "DependencyViolation",
            "resource sg-1 has a dependent object",
            Class::Conflict,
        ),
        (
            "ec2",
            "InvalidSubnetID.NotFound",
            "The subnet ID 'subnet-1' does not exist",
            Class::EventuallyConsistent,
        ),
        ("ec2", "InvalidGroup.NotFound", "", Class::EventuallyConsistent),
        (
            "ec2",
            "VpcLimitExceeded",
            "The maximum number of VPCs has been reached.",
            Class::Quota,
        ),
        (
            "ec2",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
            Class::Forbidden,
        ),
        (
            "rds",
            "InvalidDBClusterStateFault",
            "This cluster is a part of a global cluster, please remove it from globalcluster first",
            Class::Conflict,
        ),
        (
            "rds",
            "InvalidDBClusterStateFault",
            "Cluster cannot be deleted, it still contains DB instances in non-deleting state.",
            Class::Conflict,
        ),
        (
            "rds",
            "InvalidGlobalClusterStateFault",
            "Global Cluster aurora-dev is not empty",
            Class::Conflict,
        ),
        (
            "rds",
            "InvalidDBInstanceState",
            "Instance is currently creating",
            Class::Conflict,
        ),
        (
            "rds",
            "InvalidParameterCombination",
            "Cannot specify user name for cross region replication cluster",
            Class::Invalid,
        ),
        ("rds", "DBClusterQuotaExceededFault", "", Class::Quota),
        ("rds", "Throttling", "Rate exceeded", Class::Throttled),
        (
            "dynamodb",
            "LimitExceededException",
            "Subscriber limit exceeded: There is a limit of 500 tables that are being created, updated or deleted simultaneously",
            Class::Throttled,
        ),
        (
            "dynamodb",
            "ResourceInUseException",
            "Attempt to change a resource which is still in use: Table is being updated: journal-dev",
            Class::Conflict,
        ),
        (
            "dynamodb",
            "ReplicatedWriteConflictException",
            "",
            Class::Conflict,
        ),
        (
            "dynamodb",
            "ResourceNotFoundException",
            "Requested resource not found: Table: control-dev not found",
            Class::EventuallyConsistent,
        ),
        ("dynamodb", "ThrottlingException", "", Class::Throttled),
        (
            "s3",
            "OperationAborted",
            "A conflicting conditional operation is currently in progress against this resource. Please try again.",
            Class::Conflict,
        ),
        (
            "s3",
            "SlowDown",
            "Please reduce your request rate.",
            Class::Throttled,
        ),
        (
            "s3",
            "NoSuchBucket",
            "The specified bucket does not exist",
            Class::EventuallyConsistent,
        ),
        (
            "s3",
            "MalformedPolicy",
            "Invalid principal in policy",
            Class::EventuallyConsistent,
        ),
        (
            "s3",
            "InvalidRequest",
            "Versioning must be 'Enabled' on the bucket to apply a replication configuration",
            Class::EventuallyConsistent,
        ),
        (
            "s3",
            "InvalidRequest",
            "DeleteMarkerReplication must be specified for this version of Cross Region Replication configuration schema.",
            Class::Invalid,
        ),
        ("s3", "TooManyBuckets", "", Class::Quota),
        (
            "apigateway",
            "TooManyRequestsException",
            "Too Many Requests",
            Class::Throttled,
        ),
        (
            "apigateway",
            "ConflictException",
            "Unable to complete operation due to concurrent modification. Please try again later.",
            Class::Conflict,
        ),
        (
            "apigateway",
            "BadRequestException",
            "CloudWatch Logs role ARN must be set in account settings to enable logging",
            Class::EventuallyConsistent,
        ),
        ("apigateway", "LimitExceededException", "", Class::Quota),
        (
            "route53",
            "PriorRequestNotComplete",
            "The request was rejected because Route 53 was still processing a prior request.",
            Class::Throttled,
        ),
        ("route53", "Throttling", "Rate exceeded", Class::Throttled),
        ("route53", "HostedZoneNotEmpty", "", Class::Conflict),
        ("route53", "TooManyHealthChecks", "", Class::Quota),
        (
            "kms",
            "MalformedPolicyDocumentException",
            "Policy contains a statement with one or more invalid principals.",
            Class::EventuallyConsistent,
        ),
        (
            "kms",
            "KMSInvalidStateException",
            "arn is pending import",
            Class::Conflict,
        ),
        ("kms", "KMSInternalException", "", Class::Unavailable),
        (
            "secretsmanager",
            "InvalidRequestException",
            "You can't create this secret because a secret with this name is already scheduled for deletion.",
            Class::Conflict,
        ),
        (
            "secretsmanager",
            "InvalidRequestException",
            "This secret is currently being replicated",
            Class::Conflict,
        ),
        (
            "states",
            "AccessDeniedException",
            "Neither the global service principal states.amazonaws.com, nor the regional one is authorized to assume the provided role.",
            Class::EventuallyConsistent,
        ),
        ("states", "StateMachineDeleting", "", Class::Conflict),
        ("states", "StateMachineLimitExceeded", "", Class::Quota),
        (
            "scheduler",
            "ValidationException",
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.",
            Class::EventuallyConsistent,
        ),
        ("scheduler", "ConflictException", "", Class::Conflict),
        ("scheduler", "ServiceQuotaExceededException", "", Class::Quota),
        (
            "logs",
            "OperationAbortedException",
            "A conflicting operation is currently in progress against this resource.",
            Class::Conflict,
        ),
        (
            "logs",
            "LimitExceededException",
            "Resource limit exceeded.",
            Class::Quota,
        ),
        ("logs", "ServiceUnavailableException", "", Class::Unavailable),
        ("cloudwatch", "InternalServiceFault", "", Class::Unavailable),
        (
            "cloudwatch",
            "ConcurrentModificationException",
            "",
            Class::Conflict,
        ),
        ("acm", "RequestInProgressException", "", Class::Conflict),
        ("sns", "AuthorizationError", "", Class::Forbidden),
        ("sns", "Throttled", "Rate exceeded", Class::Throttled),
        (
            "sts",
            "ExpiredToken",
            "The security token included in the request is expired",
            Class::Denied,
        ),
        (
            "any",
            "AccessDeniedException",
            "User: x is not authorized to perform: lambda:CreateFunction",
            Class::Forbidden,
        ),
        ("any", "InternalServerError", "", Class::Unavailable),
        ("any", "Strange", "", Class::Other),
    ];

    #[test]
    fn documented_answers_are_sorted() {
        for (service, code, message, class) in DOCUMENTED {
            assert_eq!(
                classify(Some(code), message),
                *class,
                "{service} {code}: {message}"
            );
        }
    }

    #[test]
    fn an_answer_without_a_code_says_nothing() {
        assert_eq!(classify(None, "bad gateway"), Class::Other);
    }

    #[test]
    fn final_failures_are_not_tried_again_and_others_are() {
        for class in [Class::Denied, Class::Quota, Class::Invalid, Class::Other] {
            assert_eq!(class.patience(), None, "{class:?}");
        }
        // API Gateway makes one domain name in 30 seconds: two of ours and a few of others.
        assert!(Class::Throttled.patience() > Some(Duration::from_secs(120)));
        // Lambda's network interfaces.
        assert!(Class::Conflict.patience() >= Some(Duration::from_secs(45 * 60)));
        // A typing error in a policy must not hold a deployment up for long.
        assert!(Class::Forbidden.patience() <= Some(Duration::from_secs(15)));
    }
}
