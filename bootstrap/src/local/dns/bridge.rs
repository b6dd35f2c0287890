//! The name server's way to the emulator: not through the edge, so that its own questions are not taken for somebody's calls,
//! but with the same bridge over the answers.

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};

use crate::local::edge::health_checks;

/// Plain HTTP with the bridge.
pub(super) fn http_client() -> SharedHttpClient {
    SharedHttpClient::new(Bridged(aws_smithy_http_client::Builder::new().build_http()))
}

#[derive(Debug)]
struct Bridged<T>(T);

impl HttpClient for Bridged<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Bridged(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for Bridged<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sent = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut response = sent.await?;
            let body = ByteStream::new(response.take_body()).collect().await;
            let answer = body
                .map_err(|error| ConnectorError::io(error.into()))?
                .into_bytes();
            let rewritten = health_checks::rewrite(&answer);
            *response.body_mut() = rewritten.map_or_else(|| SdkBody::from(answer), SdkBody::from);
            Ok(response)
        })
    }
}
