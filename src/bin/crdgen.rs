//! Writes the generated files: `crds/*.yaml`.
use kube::CustomResourceExt;
fn main() {
    println!(
        "{}---\n{}",
        serde_yaml::to_string(&clustertracing::api::ClusterTracing::crd()).expect("a CRD serializes"),
        serde_yaml::to_string(&clustertracing::api::NodeTracing::crd()).expect("a CRD serializes")
    );
}
