//! The peers, each set up once for the whole process, and with nothing that sends.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Stream, Temporality};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;

/// More series than any part makes.
pub const MOST_SERIES: usize = 4_000_000;

pub const LABELS: [&str; 2] = ["route", "method"];

/// Two labels known at run time: `prometheus-client` looks them up by an owned value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    pub route: String,
    pub method: String,
}

pub type ClientFamily = Family<Labels, prometheus_client::metrics::counter::Counter>;

pub fn prometheus() -> prometheus::IntCounterVec {
    let options = prometheus::Opts::new("requests_total", "requests");
    let counters = prometheus::IntCounterVec::new(options, &LABELS).expect("the name is one of Prometheus");
    prometheus::register(Box::new(counters.clone())).expect("registered once");
    counters
}

/// Installs the recorder the first time.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().expect("installed once"))
}

pub fn opentelemetry() -> &'static SdkMeterProvider {
    // By default a counter has 2,000 series; all beyond are one. The view lifts that.
    static PROVIDER: LazyLock<SdkMeterProvider> = LazyLock::new(|| {
        let reader = PeriodicReader::builder(Discarding).with_interval(Duration::from_secs(3_600)).build();
        SdkMeterProvider::builder()
            .with_reader(reader)
            .with_view(|_: &opentelemetry_sdk::metrics::Instrument| {
                Stream::builder().with_cardinality_limit(MOST_SERIES).build().ok()
            })
            .build()
    });
    &PROVIDER
}

pub fn opentelemetry_counter() -> opentelemetry::metrics::Counter<u64> {
    opentelemetry().meter("bench").u64_counter("requests").build()
}

pub fn cadence() -> cadence::StatsdClient {
    cadence::StatsdClient::from_sink("bench", cadence::NopMetricSink)
}

struct Discarding;

impl PushMetricExporter for Discarding {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        std::hint::black_box(metrics);
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Delta
    }
}
