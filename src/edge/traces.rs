//! Spans on their way to the operator's collector: OTLP, as protobuf over HTTP.
//!
//! The messages are OpenTelemetry's own. Its exporter is not used: it takes settings from the environment beside ours,
//! repeats requests while more spans gather, and would be given this client anyway.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use super::client::{self, AGENT, HttpClient};
use crate::config::{self, Config};
use crate::state::metrics::Metrics;
use crate::state::report::Report;
use crate::state::traces::{self, Traces};

/// How long the collector may take in all, as the OTLP specification suggests.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read of its answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends the calls that are sampled to the collector of `config`, if it has one. `report` is told when that begins to fail,
/// and when it works again.
pub fn start(config: &Config, metrics: Arc<Metrics>, report: Report) -> io::Result<Traces> {
    let Some(traces) = &config.traces else { return Ok(Traces::off()) };
    let collector = Collector::new(traces)?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let send = Box::new(move |spans| collector.send(spans));
    Ok(Traces::start(send, traces.sample_ratio, scheme, metrics, report))
}

/// Where spans are posted to.
struct Collector {
    client: HttpClient,
    uri: Uri,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    /// There until the end.
    runtime: Option<Runtime>,
}

impl Collector {
    fn new(config: &config::Traces) -> io::Result<Collector> {
        let lines = config.headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(io::Error::other)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        let mut headers = lines.collect::<io::Result<HeaderMap>>()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(Collector {
            client: client::new("traces.endpoint", config.endpoint.uri())?,
            uri: config.endpoint.uri().clone(),
            headers,
            resource: ResourceAttributesWithSchema::from(&traces::resource()),
            runtime: Some(runtime::Builder::new_current_thread().enable_all().build()?),
        })
    }

    /// Sends spans once, and waits: how many of them were rejected, or in a few words why none arrived.
    fn send(&self, spans: Vec<SpanData>) -> Result<u64, String> {
        let runtime = self.runtime.as_ref().ok_or("the program ends")?;
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let sent = runtime.block_on(async { timeout(TIMEOUT, self.post(body.into())).await });
        sent.unwrap_or_else(|_| Err(format!("timed out after {} s", TIMEOUT.as_secs())))
    }

    async fn post(&self, body: Bytes) -> Result<u64, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let answer = self.client.request(request).await.map_err(|error| client::explain(&error))?;
        if !answer.status().is_success() {
            return Err(format!("status {}", answer.status().as_str()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        // Whoever answers 200 and something else has taken them all the same.
        let told = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body.to_bytes()).ok());
        let rejected = told.and_then(|told| told.partial_success).map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not dropped, which would wait for look-ups of names.
            runtime.shutdown_background();
        }
    }
}
