//! Counters, gauges and histograms, shown in the Prometheus text format.
//!
//! A registry is a value that a component is given; there is no global one, so that two clusters in one
//! process do not add up.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Label names and values of one series, in the order given by the metric.
type Series = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: &'static str,
    buckets: &'static [f64],
    values: BTreeMap<Series, Value>,
    histograms: BTreeMap<Series, Histogram>,
}

/// One series of a counter or gauge: for whoever changes it often, to find it once. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Value(Arc<Mutex<f64>>);

impl Value {
    pub fn add(&self, by: f64) {
        *self.0.lock() += by;
    }

    pub fn set(&self, to: f64) {
        *self.0.lock() = to;
    }
}

/// One series of a histogram: for whoever counts into it often, to find it once. Clones share it.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug)]
struct Counted {
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counted = Counted { counts: vec![0; bounds.len()], sum: 0.0, count: 0 };
        Self { bounds, counted: Arc::new(Mutex::new(counted)) }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let mut counted = self.counted.lock();
        let first = self.bounds.partition_point(|bound| *bound < value);
        counted.counts[first..].iter_mut().for_each(|count| *count += 1);
        counted.sum += value;
        counted.count += 1;
    }
}

/// A set of metrics. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Metrics(Arc<Mutex<BTreeMap<&'static str, Family>>>);

impl Metrics {
    /// Adds to a counter (made on first use).
    pub fn add(&self, name: &'static str, help: &'static str, labels: Series, by: f64) {
        self.counter(name, help, labels).add(by);
    }

    /// A counter's series (made on first use).
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Series) -> Value {
        self.with(name, help, Kind::Counter, &[], |f| f.values.entry(labels).or_default().clone())
    }

    /// A gauge's series (made on first use).
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Series) -> Value {
        self.with(name, help, Kind::Gauge, &[], |f| f.values.entry(labels).or_default().clone())
    }

    /// A histogram's series with the given upper bounds (seconds or whatever the name says), made on first
    /// use.
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &'static [f64],
        labels: Series,
    ) -> Histogram {
        self.with(name, help, Kind::Histogram, buckets, |f| {
            let bounds = f.buckets;
            f.histograms.entry(labels).or_insert_with(|| Histogram::new(bounds)).clone()
        })
    }

    /// Sets a gauge (made on first use).
    pub fn set(&self, name: &'static str, help: &'static str, labels: Series, to: f64) {
        self.gauge(name, help, labels).set(to);
    }

    /// Changes a gauge by `by`.
    pub fn change(&self, name: &'static str, help: &'static str, labels: Series, by: f64) {
        self.gauge(name, help, labels).add(by);
    }

    /// Counts `value` into a histogram's series; see [`Metrics::histogram`].
    pub fn observe(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &'static [f64],
        labels: Series,
        value: f64,
    ) {
        self.histogram(name, help, buckets, labels).observe(value);
    }

    /// The text exposition of every metric (format version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.0.lock().iter() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (series, value) in &family.values {
                let _ = writeln!(out, "{name}{} {}", braces(series, None), value.0.lock());
            }
            for (series, histogram) in &family.histograms {
                let h = histogram.counted.lock();
                for (bound, count) in family.buckets.iter().zip(&h.counts) {
                    let _ =
                        writeln!(out, "{name}_bucket{} {count}", braces(series, Some(&bound.to_string())));
                }
                let _ = writeln!(out, "{name}_bucket{} {}", braces(series, Some("+Inf")), h.count);
                let _ = writeln!(out, "{name}_sum{} {}", braces(series, None), h.sum);
                let _ = writeln!(out, "{name}_count{} {}", braces(series, None), h.count);
            }
        }
        out
    }

    fn with<T>(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        buckets: &'static [f64],
        change: impl FnOnce(&mut Family) -> T,
    ) -> T {
        let mut families = self.0.lock();
        let family = families.entry(name).or_insert_with(|| Family {
            kind,
            help,
            buckets,
            values: BTreeMap::new(),
            histograms: BTreeMap::new(),
        });
        debug_assert_eq!(family.kind, kind, "{name} is used as two kinds of metric");
        change(family)
    }
}

fn braces(series: &Series, le: Option<&str>) -> String {
    let mut parts: Vec<String> = series
        .iter()
        .map(|(k, v)| {
            format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
        })
        .collect();
    if let Some(le) = le {
        parts.push(format!("le=\"{le}\""));
    }
    if parts.is_empty() { String::new() } else { format!("{{{}}}", parts.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_text_format() {
        let metrics = Metrics::default();
        metrics.add("requests_total", "Requests.", vec![("verb", "GET".into())], 1.0);
        metrics.observe("latency_seconds", "Latency.", &[0.1, 1.0], vec![], 0.5);
        let text = metrics.render();
        assert!(text.contains("requests_total{verb=\"GET\"} 1\n"), "{text}");
        assert!(text.contains("latency_seconds_bucket{le=\"0.1\"} 0\n"), "{text}");
        assert!(text.contains("latency_seconds_bucket{le=\"1\"} 1\n"), "{text}");
        assert!(text.contains("latency_seconds_bucket{le=\"+Inf\"} 1\n"), "{text}");
    }
}
