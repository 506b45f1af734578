//! The metrics as Prometheus text.

use std::collections::BTreeMap;
use std::future::ready;

use ibid::Error;
use ibid::http::{Count, Idempotency, RequestEnd};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::patience::patiently;
use super::routes::KEYED;

/// What everything in this process that goes through the `metrics` facade comes to.
#[derive(Clone)]
pub(crate) struct Metrics(PrometheusHandle);

impl Metrics {
    /// From here on, once per process.
    pub(crate) fn install() -> Result<Self, BuildError> {
        PrometheusBuilder::new().install_recorder().map(Self)
    }

    /// The exporter makes `_` of `.`; what remains are one name, and the seven days, which come from the store.
    pub(crate) async fn text(&self, idempotency: &Idempotency) -> Result<String, Error> {
        let text = self.0.render().replace("idempotency_storage_failure_count", "idempotency_storage_failure_total");
        Ok(text + &seven_days(patiently(|| ready(idempotency.counts())).await?))
    }
}

/// Every outcome of every keyed route, and what else has been counted.
fn seven_days(counts: Vec<Count>) -> String {
    let mut sums: BTreeMap<(String, RequestEnd), u64> = BTreeMap::new();
    for route in KEYED {
        sums.extend(RequestEnd::COUNTED.map(|ended| ((route.to_owned(), ended), 0)));
    }
    for Count { route, ended, count, .. } in counts {
        sums.insert((route, ended), count);
    }
    let mut text = String::from("# TYPE idempotency_7d gauge\n");
    for ((route, ended), sum) in sums {
        let (route, outcome) = (escaped(&route), ended.name());
        text.push_str(&format!("idempotency_7d{{route=\"{route}\",outcome=\"{outcome}\"}} {sum}\n"));
    }
    text
}

/// As a label's value has it. A template may hold what the text gives a meaning to.
fn escaped(route: &str) -> String {
    route.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
