//! `extraConfig`: what a person adds to the configuration of the collector that sends to the back ends.
//!
//! It adds and never replaces. The operator's own components and pipelines are closed: a setting in them could undo the redaction, or what
//! keeps a slow back end from holding up kube-apiserver. Open are new components and pipelines, settings of the exporters that the resource
//! names, and the ends of three lists. Whether the collector takes the whole is for its own `validate` to say.

use serde_json::{Map, Value};

use super::config;
use crate::plan::validate::Collector;

/// The pipeline to the back ends.
pub(super) const PIPELINE: &str = "traces";

/// Something that cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("extraConfig{path}: {problem}")]
pub struct Conflict {
    /// Where, below `extraConfig`: begins with a dot.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What may be added to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open<'a> {
    /// Exporters that the resource names, as the configuration has them.
    pub(super) exporters: &'a [String],
    /// Receivers that no further pipeline may take spans from: theirs are not redacted.
    pub(super) closed_receivers: &'a [&'static str],
}

impl Conflict {
    fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// Whether what is added to this collector's configuration fits into it.
pub fn check(collector: &Collector) -> Result<(), Conflict> {
    config::sender(collector, "").map(drop)
}

/// Exporters that are added to the pipeline to the back ends.
pub fn exporters(extra: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let pipeline = extra.get("service").and_then(|service| service.get("pipelines")?.get(PIPELINE)?.get("exporters")?.as_array());
    pipeline.into_iter().flatten().filter_map(Value::as_str)
}

/// `config` with what is added to it.
pub(super) fn merge(mut config: Value, extra: &Map<String, Value>, open: Open<'_>) -> Result<Value, Conflict> {
    for (section, added) in extra {
        let at = format!(".{section}");
        match section.as_str() {
            "receivers" | "processors" | "connectors" | "exporters" | "extensions" => {
                let is_open = |name: &String| section == "exporters" && open.exporters.contains(name);
                components(object_mut(&mut config[section.as_str()]), object(added, &at)?, &at, is_open)?;
            }
            "service" => service(&mut config["service"], object(added, &at)?, &at, open)?,
            _ => {
                let problem = "is none of receivers, processors, connectors, exporters, extensions and service";
                return Err(Conflict::new(at, problem));
            }
        }
    }
    Ok(config)
}

fn components(
    ours: &mut Map<String, Value>,
    added: &Map<String, Value>,
    at: &str,
    is_open: impl Fn(&String) -> bool,
) -> Result<(), Conflict> {
    for (name, settings) in added {
        let at = format!("{at}.{name}");
        match ours.get_mut(name) {
            Some(ours) if is_open(name) => add(ours, settings, &at)?,
            Some(_) => return Err(Conflict::new(at, "is the operator's own: give yours a name of its own, as type/name")),
            None => drop(ours.insert(name.clone(), literal(settings, &at)?)),
        }
    }
    Ok(())
}

fn service(ours: &mut Value, added: &Map<String, Value>, at: &str, open: Open<'_>) -> Result<(), Conflict> {
    for (key, value) in added {
        let at = format!("{at}.{key}");
        match key.as_str() {
            "extensions" => append(&mut ours["extensions"], value, &at)?,
            "pipelines" => {
                for (name, pipeline) in object(value, &at)? {
                    let at = format!("{at}.{name}");
                    add_pipeline(object_mut(&mut ours["pipelines"]), name, object(pipeline, &at)?, &at, open)?;
                }
            }
            _ => return Err(Conflict::new(at, "is set by the operator: only extensions and pipelines can be added to")),
        }
    }
    Ok(())
}

fn add_pipeline(ours: &mut Map<String, Value>, name: &str, added: &Map<String, Value>, at: &str, open: Open<'_>) -> Result<(), Conflict> {
    match ours.get_mut(name) {
        Some(pipeline) if name == PIPELINE => {
            for (key, value) in added {
                let at = format!("{at}.{key}");
                match key.as_str() {
                    "processors" | "exporters" => append(&mut pipeline[key.as_str()], value, &at)?,
                    _ => return Err(Conflict::new(at, "only processors and exporters can be appended to this pipeline")),
                }
            }
            Ok(())
        }
        Some(_) => Err(Conflict::new(at, "is the operator's own pipeline")),
        None => {
            let receivers = added.get("receivers").and_then(Value::as_array);
            let closed = receivers.into_iter().flatten().filter_map(Value::as_str).find(|name| open.closed_receivers.contains(name));
            if let Some(closed) = closed {
                let problem = format!("takes spans from {closed}, where they are not redacted yet: take them from the connector forward");
                return Err(Conflict::new(format!("{at}.receivers"), problem));
            }
            ours.insert(name.to_owned(), literal(&Value::Object(added.clone()), at)?);
            Ok(())
        }
    }
}

/// Adds settings; none that is there becomes another.
fn add(ours: &mut Value, added: &Value, at: &str) -> Result<(), Conflict> {
    let (Value::Object(ours), Value::Object(added)) = (ours, added) else {
        return Err(Conflict::new(at, "is set by the operator"));
    };
    for (key, value) in added {
        let at = format!("{at}.{key}");
        match ours.get_mut(key) {
            Some(ours) => add(ours, value, &at)?,
            None => drop(ours.insert(key.clone(), literal(value, &at)?)),
        }
    }
    Ok(())
}

fn append(ours: &mut Value, added: &Value, at: &str) -> Result<(), Conflict> {
    let (Value::Array(ours), Value::Array(added)) = (ours, added) else {
        return Err(Conflict::new(at, "is a list of names"));
    };
    for name in added {
        if !name.is_string() {
            return Err(Conflict::new(at, "is a list of names"));
        }
        if ours.contains(name) {
            return Err(Conflict::new(at, format!("has {name} already")));
        }
        ours.push(literal(name, at)?);
    }
    Ok(())
}

/// What is added means what it says: the collector would expand `${…}`, and read variables and files with its own rights.
fn literal(value: &Value, at: &str) -> Result<Value, Conflict> {
    Ok(match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => Value::Array(items.iter().map(|item| literal(item, at)).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                if key.contains('$') {
                    return Err(Conflict::new(format!("{at}.{key}"), "has a $ in its name"));
                }
                Ok((key.clone(), literal(value, &format!("{at}.{key}"))?))
            };
            Value::Object(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, Conflict> {
    value.as_object().ok_or_else(|| Conflict::new(at, "is not an object"))
}

/// What is not there yet is empty.
fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(extra: &Value) -> Result<Value, String> {
        let ours = json!({
            "processors": { "memory_limiter": { "check_interval": "1s" } },
            "exporters": { "otlp_grpc/clustertracing-store": {}, "otlp_grpc/tempo": { "endpoint": "tempo:4317", "tls": { "insecure": true } } },
            "service": {
                "extensions": ["health_check"],
                "telemetry": {},
                "pipelines": {
                    "traces/received": { "receivers": ["otlp"], "exporters": ["forward"] },
                    "traces": { "receivers": ["forward"], "processors": [], "exporters": ["otlp_grpc/tempo"] },
                },
            },
        });
        let open = Open { exporters: &["otlp_grpc/tempo".to_owned()], closed_receivers: &["otlp"] };
        merge(ours, extra.as_object().unwrap(), open).map_err(|conflict| conflict.to_string())
    }

    #[test]
    fn components_pipelines_and_settings_are_added_and_mean_what_they_say() {
        let config = merged(&json!({
            "processors": { "attributes/cluster": { "actions": [{ "key": "k8s.cluster.name", "value": "a$${env:B}", "action": "insert" }] } },
            "exporters": { "otlp_grpc/tempo": { "tls": { "curve_preferences": ["X25519"] }, "num_streams": 2 }, "debug": null },
            "service": {
                "extensions": ["pprof"],
                "pipelines": {
                    "traces": { "processors": ["attributes/cluster"], "exporters": ["debug"] },
                    "traces/errors": { "receivers": ["forward"], "exporters": ["debug"] },
                },
            },
        }))
        .unwrap();
        assert_eq!(config["processors"]["attributes/cluster"]["actions"][0]["value"], "a$$$${env:B}");
        assert_eq!(
            config["exporters"]["otlp_grpc/tempo"],
            json!({ "endpoint": "tempo:4317", "tls": { "insecure": true, "curve_preferences": ["X25519"] }, "num_streams": 2 })
        );
        assert_eq!(config["service"]["extensions"], json!(["health_check", "pprof"]));
        assert_eq!(
            config["service"]["pipelines"]["traces"],
            json!({ "receivers": ["forward"], "processors": ["attributes/cluster"], "exporters": ["otlp_grpc/tempo", "debug"] })
        );
        assert_eq!(config["service"]["pipelines"]["traces/errors"], json!({ "receivers": ["forward"], "exporters": ["debug"] }));
    }

    #[test]
    fn what_would_replace_or_unlock_something_is_named_by_its_path() {
        let cases = [
            (json!({ "processors": { "memory_limiter": { "limit_mib": 9 } } }), ".processors.memory_limiter: is the operator's own"),
            (
                json!({ "exporters": { "otlp_grpc/clustertracing-store": {} } }),
                ".exporters.otlp_grpc/clustertracing-store: is the operator's",
            ),
            (
                json!({ "exporters": { "otlp_grpc/tempo": { "endpoint": "x:1" } } }),
                ".exporters.otlp_grpc/tempo.endpoint: is set by the operator",
            ),
            (
                json!({ "exporters": { "otlp_grpc/tempo": { "tls": { "insecure": false } } } }),
                ".exporters.otlp_grpc/tempo.tls.insecure: is set by the operator",
            ),
            (json!({ "service": { "telemetry": {} } }), ".service.telemetry: is set by the operator"),
            (json!({ "service": { "pipelines": { "traces/received": {} } } }), ".service.pipelines.traces/received: is the operator's own"),
            (
                json!({ "service": { "pipelines": { "traces": { "receivers": ["otlp"] } } } }),
                ".service.pipelines.traces.receivers: only processors and exporters",
            ),
            (
                json!({ "service": { "pipelines": { "traces/raw": { "receivers": ["otlp"], "exporters": ["debug"] } } } }),
                ".service.pipelines.traces/raw.receivers: takes spans from otlp, where they are not redacted yet",
            ),
            (json!({ "service": { "pipelines": { "traces": { "exporters": ["otlp_grpc/tempo"] } } } }), "has \"otlp_grpc/tempo\" already"),
            (json!({ "service": { "extensions": "pprof" } }), ".service.extensions: is a list of names"),
            (json!({ "procesors": {} }), ".procesors: is none of receivers"),
            (json!({ "processors": ["batch"] }), ".processors: is not an object"),
            (json!({ "processors": { "batch": { "${env:A}": 1 } } }), ".processors.batch.${env:A}: has a $ in its name"),
        ];
        for (extra, part) in cases {
            let told = merged(&extra).unwrap_err();
            assert!(told.contains(part), "{extra}: {told}");
        }
    }
}
