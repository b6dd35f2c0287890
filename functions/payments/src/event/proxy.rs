//! A request as API Gateway hands it to a function, and the response that it takes: of the
//! [proxy integration's format](https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html)
//! what is used here. Every request is read and answered in this form, so nothing else of it is read.

use std::borrow::Cow;
use std::fmt;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A request. Names and values of the query are decoded.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxied<'a> {
    #[serde(deserialize_with = "method")]
    pub http_method: Method,
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    #[serde(default)]
    pub multi_value_headers: Option<Headers>,
    #[serde(default, borrow)]
    pub multi_value_query_string_parameters: Option<Lists<'a>>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub is_base64_encoded: bool,
    #[serde(borrow)]
    pub request_context: RequestContext<'a>,
}

/// Where it came from.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestContext<'a> {
    /// The stage of the API: what is called otherwise has none.
    #[serde(rename = "stage", borrow)]
    pub _stage: Cow<'a, str>,
    #[serde(default)]
    pub request_id: Option<String>,
}

/// A response. Its body is text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The HTTP status.
    pub status_code: u16,
    /// The headers.
    pub multi_value_headers: Headers,
    /// The body.
    pub body: String,
    /// It is never encoded.
    pub is_base64_encoded: bool,
}

/// Text, as it stands in the event where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads an object whose members are lists of strings, or null.
struct EachValue<F>(F);

impl<'de, F: FnMut(&Text<'de>, Text<'de>)> Visitor<'de> for EachValue<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lists of strings by name")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut members: M) -> Result<(), M::Error> {
        while let Some(name) = members.next_key::<Text<'de>>()? {
            for value in members
                .next_value::<Option<Vec<Text<'de>>>>()?
                .into_iter()
                .flatten()
            {
                (self.0)(&name, value);
            }
        }
        Ok(())
    }
}

/// Headers. What HTTP does not allow in one cannot have come with a request, and is left out.
#[derive(Debug, Default)]
pub struct Headers(pub HeaderMap);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut headers = HeaderMap::with_capacity(16);
        deserializer.deserialize_map(EachValue(|name: &Text<'de>, value: Text<'de>| {
            let name = HeaderName::from_bytes(name.0.as_bytes());
            let value = HeaderValue::from_bytes(value.0.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }))?;
        Ok(Headers(headers))
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(self.0.keys_len()))?;
        for name in self.0.keys() {
            let values: Vec<_> = self
                .0
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            members.serialize_entry(name.as_str(), &values)?;
        }
        members.end()
    }
}

/// Pairs of name and value, in their order.
#[derive(Default)]
pub struct Lists<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Lists<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut pairs = Vec::new();
        deserializer.deserialize_map(EachValue(|name: &Text<'de>, value: Text<'de>| {
            pairs.push((name.0.clone(), value.0));
        }))?;
        Ok(Lists(pairs))
    }
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let text = Text::deserialize(deserializer)?;
    Method::from_bytes(text.0.as_bytes()).map_err(serde::de::Error::custom)
}
