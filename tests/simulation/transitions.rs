//! One spec after the other, made from the resource's own schema (types, ranges, enumerations, patterns), wrong ones among them. After each,
//! the manifests are what the spec says of the *original* manifests: nothing of the way there is left in them. After the last, which
//! deletes the resource, they are the originals: bytes, mode, owner.
//!
//! A spec that the schema refuses may be stored all the same, by an older schema: it must change nothing, and the next one must take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clustertracing::api::clustertracing::SingleNodeDowntime;
use clustertracing::api::{ClusterTracing, RolloutMode};
use clustertracing::component::{ManifestFile, change};
use clustertracing::host::{File, Folder};
use clustertracing::plan::secret;
use clustertracing::plan::validate::{Goal, validate};
use kube::CustomResourceExt;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestCaseError;
use serde_json::{Map, Value, json};
use tokio::task::LocalSet;

use crate::cluster::{Cluster, World, is_in_flight};
use crate::machine::{FILES, Machine};
use crate::processes::{self, installation};
use crate::seed::Chance;

/// Node and file → what it holds.
type Files = BTreeMap<(String, &'static str), File>;

/// Versions whose kubeadm manifests the nodes have.
const VERSIONS: [&str; 4] = ["1.28.15", "1.34.4", "1.36.3", "1.37.1"];
/// Texts that somebody may give where an endpoint is expected.
const TEXTS: [&str; 8] =
    ["10.96.0.20:4317", "[fd00::1]:4317", "tempo.example:4317", "http://tempo:4317", "169.254.169.254:80", "a:$(B)", "", "x\n- --y:1"];

/// Long before, and long after anything that happens here.
const TIMES: [&str; 2] = ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"];

/// Values of a schema, and now and then one beside it.
fn value_of(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(words) = schema["enum"].as_array() {
        return select(words.clone()).boxed();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return select(vec![json!("100m"), json!("64Mi"), json!(1)]).boxed();
    }
    match schema["type"].as_str() {
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("integer") => {
            let (least, most) = (schema["minimum"].as_i64().unwrap_or(0), schema["maximum"].as_i64().unwrap_or(1_000_000));
            prop_oneof![12 => least..=most, 3 => Just(least), 3 => Just(most), 1 => Just(least - 1), 1 => Just(most + 1)]
                .prop_map(Value::from)
                .boxed()
        }
        // the API server lets no other text in
        Some("string") if schema["format"] == "date-time" => select(TIMES.to_vec()).prop_map(Value::from).boxed(),
        Some("string") => match schema["pattern"].as_str() {
            Some(pattern) => {
                let pattern = pattern.trim_start_matches('^').trim_end_matches('$').replace('*', "{0,9}");
                proptest::string::string_regex(&pattern).expect("a pattern of the schema").prop_map(Value::from).boxed()
            }
            None => select(TEXTS.to_vec()).prop_map(Value::from).boxed(),
        },
        Some("array") => prop::collection::vec(value_of(&schema["items"]), 0..3).prop_map(Value::from).boxed(),
        Some("object") if schema["properties"].is_object() => object_of(schema),
        // labels of nodes, and other names for anything
        _ => select(vec![json!({}), json!({ "kubernetes.io/hostname": "cp-1" }), json!({ "example.com/nobody": "" })]).boxed(),
    }
}

/// Each field is there or not; required ones are.
fn object_of(schema: &Value) -> BoxedStrategy<Value> {
    let required: BTreeSet<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema["properties"].as_object().expect("properties").iter();
    let fields = fields.map(|(name, schema)| {
        let field = value_of(schema);
        // Few people give these three; where they do, most specs are for a receiver elsewhere, or refused.
        let is_rare = ["endpoint", "resources", "image"].contains(&name.as_str());
        let field = if required.contains(name.as_str()) {
            field.prop_map(Some).boxed()
        } else {
            prop::option::weighted(if is_rare { 0.1 } else { 0.4 }, field).boxed()
        };
        (Just(name.clone()), field)
    });
    let fields: Vec<_> = fields.collect();
    fields
        .prop_map(|fields| Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect::<Map<_, _>>()))
        .boxed()
}

fn spec() -> impl Strategy<Value = Value> {
    let crd = serde_json::to_value(ClusterTracing::crd()).expect("a definition");
    let external = json!({ "collector": { "mode": "External", "endpoint": "10.96.0.20:4317" } });
    let patient = |mut spec: Value| {
        // Waiting costs the simulation time, and is the plans' matter.
        if let Some(soak) = spec["rollout"]["soakSeconds"].as_i64().filter(|s| (0..=3600).contains(s)) {
            spec["rollout"]["soakSeconds"] = json!(soak % 8);
        } else if spec["rollout"]["soakSeconds"].is_null() {
            crate::objects::merge(&mut spec, &json!({ "rollout": { "soakSeconds": 0 } }));
        }
        // Nobody runs Deployments here, so that a gateway would be waited for until the end.
        if spec["collector"]["mode"] == "Gateway" {
            spec["collector"]["mode"] = json!("Node");
        }
        spec
    };
    prop_oneof![8 => value_of(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]), 1 => Just(external)]
        .prop_map(patient)
}

fn manifest(version: &str, file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/kubeadm").join(version);
    std::fs::read_to_string(folder.join(file.trim_end_matches(".yaml")).join("in.yaml")).expect("a golden manifest")
}

/// A control plane in the middle of an upgrade: each node has its own version.
fn machines(versions: &[&str]) -> BTreeMap<String, Machine> {
    let machine = |(n, version): (usize, &&str)| {
        let mut machine = Machine::new(FILES.map(|file| manifest(version, file)));
        for (n, (file, _)) in machine.files.values_mut().enumerate() {
            (file.permissions.mode, file.permissions.uid) = (0o640 - u32::try_from(n).expect("a few files") * 0o40, 7);
        }
        (format!("cp-{}", n + 1), machine)
    };
    versions.iter().enumerate().map(machine).collect()
}

fn files(world: &World) -> Files {
    let of = |(name, machine): (&String, &Machine)| {
        let file = |file: &'static str| Some(((name.clone(), file), machine.files.get(&(Folder::Manifests, file.to_owned()))?.0.clone()));
        FILES.iter().filter_map(|name| file(name)).collect::<Vec<_>>()
    };
    world.machines.iter().flat_map(of).collect()
}

/// What the nodes' manifests must be: a function of the originals and the resource, where it may be carried out at all.
fn expected(resource: &ClusterTracing, originals: &Files, current: &Files) -> Files {
    let between = "2050-01-01T00:00:00Z".parse().expect("a time between those of TIMES");
    let Ok(validated) = validate(resource, &installation()).map(|validated| validated.at(between)) else { return current.clone() };
    let rollout = &validated.rollout;
    let nodes: BTreeSet<_> = originals.keys().map(|(node, _)| node.clone()).collect();
    let selected = |node: &str| rollout.node_selector.iter().all(|(label, value)| label == "kubernetes.io/hostname" && value == node);
    let refused = nodes.len() == 1 && rollout.single_node_downtime == SingleNodeDowntime::Refused;
    let nobody = !nodes.iter().any(|node| selected(node));
    // There are no Secrets here: a collector that needs one holds the nodes back.
    let held = nobody || validated.wanted_collector().is_some_and(|collector| !secret::names(collector).is_empty());
    if validated.goal == Goal::Trace && (rollout.mode == RolloutMode::Preview || held) || rollout.paused || refused {
        return current.clone();
    }
    let mut files = originals.clone();
    for node in &nodes {
        let texts = originals.iter().filter(|((n, _), _)| n == node).map(|((_, name), file)| ManifestFile {
            name: (*name).to_owned(),
            text: String::from_utf8(file.bytes.clone()).expect("a manifest is text"),
        });
        // One node that refuses holds back all.
        let Ok(changes) = change(&texts.collect::<Vec<_>>(), &validated.target(selected(node)).settings, node) else {
            return current.clone();
        };
        for change in changes {
            let file = FILES.into_iter().find(|file| *file == change.file).expect("one of the two");
            files.get_mut(&(node.clone(), file)).expect("it was there").bytes = change.after.into_bytes();
        }
    }
    files
}

/// Nothing is under way, and nothing will come of waiting.
fn rests(world: &mut World) -> bool {
    let answered =
        ["Ready", "Stalled"].into_iter().any(|kind| world.is(kind)) || world.condition("Ready").is_some_and(|c| c.ends_with("Paused"));
    let under_way = world.objects.all("nodetracings").any(|(_, object)| is_in_flight(object));
    !under_way && (answered || world.resource().is_none()) && world.now() > world.last_write + 12_000
}

fn drive(versions: &[&str], specs: &[Value]) -> Result<usize, TestCaseError> {
    LocalSet::new().block_on(&crate::scenario::runtime(), async {
        let cluster = Cluster::new(machines(versions), Vec::new(), Chance::new(1));
        processes::start(&cluster);
        let originals = files(&cluster.world());
        let mut moved = 0;
        for spec in specs.iter().chain([&Value::Null]) {
            let before = files(&cluster.world());
            let Some(resource) = resource(&cluster, spec) else { continue };
            if spec.is_null() {
                // Either of them holds a removal back too.
                cluster.world().ask(&json!({ "rollout": { "paused": false, "singleNodeDowntime": "Allowed" } }));
            }
            cluster.world().replace(spec);
            let rested = cluster.until(1_200, |world| world.wrong.is_some() || rests(world)).await;
            let world = cluster.world();
            let told = || format!("{spec}\n{:?}\n{}", world.condition("Ready"), world.trace.join("\n"));
            prop_assert!(rested && world.wrong.is_none(), "{:?} after {}", world.wrong, told());
            let (is, should) = (files(&world), if spec.is_null() { originals.clone() } else { expected(&resource, &originals, &before) });
            prop_assert!(is == should, "other manifests after {}", told());
            moved += usize::from(is != before);
        }
        let world = cluster.world();
        let left: Vec<_> =
            world.machines.values().flat_map(|m| m.files.keys()).filter(|(folder, _)| *folder != Folder::Manifests).collect();
        prop_assert!(left.is_empty(), "left behind: {left:?}");
        Ok(moved)
    })
}

/// The resource as it will be stored; `None` for what no API server takes, because it is of another type.
fn resource(cluster: &Cluster, spec: &Value) -> Option<ClusterTracing> {
    let spec = if spec.is_null() { json!({}) } else { spec.clone() };
    let mut resource = ClusterTracing::new("cluster", serde_json::from_value(spec).ok()?);
    resource.metadata.generation = cluster.world().resource().and_then(|r| r["metadata"]["generation"].as_i64());
    Some(resource)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::number("PROPTEST_CASES").and_then(|cases| cases.try_into().ok()).unwrap_or(8), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn after_any_specs_the_manifests_are_what_the_last_one_makes_of_the_originals(
        versions in prop_oneof![2 => select(VERSIONS.to_vec()).prop_map(|version| vec![version]), 1 => Just(VERSIONS[1..].to_vec())],
        specs in prop::collection::vec(spec(), 2..6),
    ) {
        drive(&versions, &specs)?;
    }
}

#[test]
fn specs_of_the_schema_move_nodes() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let specs: Vec<_> = (0..18).map(|_| spec().new_tree(&mut runner).expect("a spec").current()).collect();
    let moved = drive(&["1.36.3"], &specs).unwrap_or_else(|error| panic!("{error}"));
    assert!(moved >= 4, "{moved} of {} changed a manifest: the test above tests little", specs.len());
}
