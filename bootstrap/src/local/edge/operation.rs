//! Which AWS operation an HTTP request is: who is asked (the SigV4 credential scope), and for what (one of the four ways
//! in which AWS protocols say it).

use http::{
    HeaderMap,
    header::{AUTHORIZATION, USER_AGENT},
    request::Parts,
};

use super::percent;

/// The services whose control plane is in one region, whatever region the caller signs for (as an SDK does that was given
/// an endpoint).
const GLOBAL_SERVICES: [&str; 2] = ["iam", "route53"];
const GLOBAL_REGION: &str = "us-east-1";

/// The service that a request is signed for, and the region it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: String,
}

/// Reads the credential scope, from the header or a presigned query. `None` for an unsigned request.
pub(super) fn scope(headers: &HeaderMap, query: Option<&str>) -> Option<Scope> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = match header {
        Some(header) => {
            let (_, rest) = header
                .strip_prefix("AWS4-HMAC-SHA256")?
                .split_once("Credential=")?;
            rest.split([',', ' ']).next()?.to_owned()
        }
        None => percent::value(query?, "X-Amz-Credential")?,
    };
    // AKID/20261123/us-east-1/dynamodb/aws4_request; an access key id may not contain a slash.
    let mut fields = credential.split('/').skip(2);
    let (region, service, end) = (fields.next()?, fields.next()?, fields.next()?);
    let region = if GLOBAL_SERVICES.contains(&service) {
        GLOBAL_REGION
    } else {
        region
    };
    (end == "aws4_request").then(|| Scope {
        region: region.to_owned(),
        service: service.to_owned(),
    })
}

/// The function that calls: SDKs tell the application's name, and the launcher names each function's after the function.
pub(super) fn caller(headers: &HeaderMap) -> Option<String> {
    let agents = [headers.get("x-amz-user-agent"), headers.get(USER_AGENT)];
    agents
        .into_iter()
        .flatten()
        .filter_map(|value| value.to_str().ok())
        .flat_map(str::split_whitespace)
        .find_map(|word| word.strip_prefix("app/"))
        .map(str::to_owned)
}

/// Whether the operation's name is in the body.
pub(super) fn is_in_body(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

/// The operation's name. `body` where it was read.
pub(super) fn name(parts: &Parts, body: Option<&[u8]>) -> String {
    // AWS JSON: `X-Amz-Target: DynamoDB_20120810.PutItem`.
    if let Some(target) = parts
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
    {
        return target.rsplit('.').next().unwrap_or(target).to_owned();
    }
    let path = parts.uri.path();
    // Smithy RPC v2: `/service/GraniteServiceVersion20100801/operation/PutMetricData`.
    if let Some((_, operation)) = path
        .strip_prefix("/service/")
        .and_then(|rest| rest.split_once("/operation/"))
    {
        return operation.to_owned();
    }
    // AWS query: `Action=DescribeVpcs`, in the body or, rarely, in the query.
    let form = body
        .filter(|_| is_in_body(&parts.headers))
        .and_then(|body| std::str::from_utf8(body).ok());
    let action = [form, parts.uri.query()]
        .into_iter()
        .flatten()
        .find_map(|text| percent::value(text, "Action"));
    if let Some(action) = action {
        return action;
    }
    // REST: what is addressed. A query without a value is a sub-resource of S3, `?versioning`.
    let sub_resource = parts
        .uri
        .query()
        .into_iter()
        .flat_map(percent::pairs)
        .find(|(_, value)| value.is_empty());
    match sub_resource {
        Some((name, _)) => format!("{} {path}?{name}", parts.method),
        None => format!("{} {path}", parts.method),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_scope_is_read_from_the_header_or_the_presigned_query() {
        let signed = "AWS4-HMAC-SHA256 Credential=AKID/20261123/us-east-2/rds/aws4_request, SignedHeaders=host, Signature=0";
        let cases = [
            (
                parts("POST", "/", &[("authorization", signed)]),
                Some(("us-east-2", "rds")),
            ),
            (
                parts(
                    "GET",
                    "/b/k?X-Amz-Credential=AKID%2F20261123%2Fus-west-2%2Fs3%2Faws4_request",
                    &[],
                ),
                Some(("us-west-2", "s3")),
            ),
            (parts("GET", "/", &[("authorization", "Bearer abc")]), None),
            (parts("GET", "/b/k", &[]), None),
            (parts("GET", "/b/k?X-Amz-Credential=broken", &[]), None),
        ];
        for (parts, expected) in cases {
            let expected = expected.map(|(region, service)| Scope {
                region: region.into(),
                service: service.into(),
            });
            assert_eq!(scope(&parts.headers, parts.uri.query()), expected, "{parts:?}");
        }
    }

    #[test]
    fn a_function_is_known_by_the_application_it_names() {
        let agent = "aws-sdk-rust/1.3 os/linux lang/rust/1.95 app/health-probe-dr-dev";
        let named = parts("POST", "/", &[("x-amz-user-agent", agent), ("user-agent", "x")]);
        assert_eq!(caller(&named.headers).as_deref(), Some("health-probe-dr-dev"));
        assert_eq!(
            caller(&parts("POST", "/", &[("user-agent", "aws-cli/2")]).headers),
            None
        );
    }

    #[test]
    fn the_operation_is_found_in_every_protocol() {
        let form = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        let cases: [(Parts, Option<&[u8]>, &str); 7] = [
            (
                parts("POST", "/", &[("x-amz-target", "DynamoDB_20120810.PutItem")]),
                None,
                "PutItem",
            ),
            (
                parts("POST", "/service/Granite/operation/PutMetricData", &[]),
                None,
                "PutMetricData",
            ),
            (
                parts("POST", "/", &[form]),
                Some(b"Version=1&Action=CreateDBCluster"),
                "CreateDBCluster",
            ),
            (parts("GET", "/?Action=DescribeVpcs", &[]), None, "DescribeVpcs"),
            (
                parts("PUT", "/bucket?versioning", &[]),
                None,
                "PUT /bucket?versioning",
            ),
            (
                parts("GET", "/bucket/key?x-id=GetObject", &[]),
                None,
                "GET /bucket/key",
            ),
            (
                parts("POST", "/2013-04-01/hostedzone/Z1/rrset/", &[]),
                None,
                "POST /2013-04-01/hostedzone/Z1/rrset/",
            ),
        ];
        for (parts, body, expected) in cases {
            assert_eq!(name(&parts, body), expected);
        }
    }
}
