use std::io::Write;
use std::sync::{Arc, Mutex};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tracing::field::Empty;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().map_err(|_| std::io::Error::other("poisoned"))?.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().map_err(|_| OTelSdkError::InternalFailure("poisoned".to_owned()))?.extend(batch);
        Ok(())
    }
}

/// What is exported, and what is logged, while `work` runs.
fn told(work: impl FnOnce()) -> (Vec<SpanData>, String) {
    let (exporter, lines) = (Exported::default(), Lines::default());
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer).with(traces(&provider)), work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (exporter.0.lock().unwrap().clone(), text)
}

#[test]
fn a_line_within_a_trace_tells_its_id() {
    let (spans, lines) = told(|| {
        tracing::info_span!("reconcile", trace_id = Empty).in_scope(|| {
            show_trace_id();
            tracing::info_span!("plan").in_scope(|| tracing::info!("deciding"));
        });
    });
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["plan", "reconcile"]);
    let id = spans[0].span_context.trace_id();
    assert_eq!(spans[1].span_context.trace_id(), id);
    assert!(lines.contains(&format!("reconcile{{trace_id={id}}}:plan: ")), "{lines}");
}

/// What sending spans does makes spans, too, in the libraries that do it.
#[test]
fn nothing_is_fed_on_itself() {
    let (spans, _) = told(|| {
        tracing::info_span!(target: "h2::client", "send").in_scope(|| ());
        tracing::info_span!(target: "opentelemetry_sdk", "export").in_scope(|| ());
        tracing::info_span!(target: "clustertracing_of_others", "else").in_scope(|| ());
        tracing::debug_span!("detail").in_scope(|| ());
    });
    assert!(spans.is_empty(), "{spans:?}");
}

#[test]
fn where_no_traces_are_made_lines_have_no_id() {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info_span!("reconcile", trace_id = Empty).in_scope(|| {
            show_trace_id();
            tracing::info!("deciding");
        });
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains(" reconcile: ") && !text.contains("trace_id"), "{text}");
}

/// An endpoint that nothing can be sent to is told at the start, with what it should look like.
#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    let error = provider("not a url", "clustertracing-agent", None).unwrap_err();
    assert!(error.to_string().contains("send the program's own traces to not a url: give it as http://host:port"), "{error}");
}
