//! What the Service of the trace store points at.
//!
//! kube-proxy reads `EndpointSlice`s. The API server's service proxy, through which people read the store, does so from 1.37 on, and reads
//! Endpoints before (pkg/registry/core/service/storage); it connects to none that does not name its pod. So both are written.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as AddressPort, EndpointSubset, Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;

use super::Place;
use crate::api::FIELD_MANAGER_CONTROLLER;

/// Name of the Service, and of both objects. The chart brings the Service.
pub(super) const SERVICE: &str = "clustertracing-store";

/// Both objects. They belong to the pod: where no controller is left, nothing points at its address.
pub(super) fn objects(place: &Place) -> (EndpointSlice, Endpoints) {
    // By the names that they have in the Service.
    let ports = [("grpc", place.grpc_port), ("http", place.http_port)];
    let target = ObjectReference {
        kind: Some("Pod".to_owned()),
        name: Some(place.pod.clone()),
        namespace: Some(place.namespace.clone()),
        uid: Some(place.uid.clone()),
        ..ObjectReference::default()
    };
    let slice = EndpointSlice {
        metadata: metadata(
            place,
            &[("kubernetes.io/service-name", SERVICE), ("endpointslice.kubernetes.io/managed-by", FIELD_MANAGER_CONTROLLER)],
        ),
        address_type: if place.ip.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![place.ip.to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            target_ref: Some(target.clone()),
            ..Endpoint::default()
        }]),
        ports: Some(ports.map(slice_port).into()),
    };
    let subset = EndpointSubset {
        addresses: Some(vec![EndpointAddress { ip: place.ip.to_string(), target_ref: Some(target), ..EndpointAddress::default() }]),
        ports: Some(ports.map(address_port).into()),
        ..EndpointSubset::default()
    };
    // Not mirrored: the slice is there already.
    let addresses =
        Endpoints { metadata: metadata(place, &[("endpointslice.kubernetes.io/skip-mirror", "true")]), subsets: Some(vec![subset]) };
    (slice, addresses)
}

fn metadata(place: &Place, labels: &[(&str, &str)]) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: place.pod.clone(),
        uid: place.uid.clone(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(SERVICE.to_owned()),
        labels: Some(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

fn slice_port((name, port): (&str, u16)) -> EndpointPort {
    EndpointPort { name: Some(name.to_owned()), port: Some(port.into()), protocol: Some("TCP".to_owned()), ..EndpointPort::default() }
}

fn address_port((name, port): (&str, u16)) -> AddressPort {
    AddressPort { name: Some(name.to_owned()), port: port.into(), protocol: Some("TCP".to_owned()), ..AddressPort::default() }
}

/// Whether everything that is wanted stands in what was found, which may have more: what the API server adds.
pub(super) fn holds(found: &impl Serialize, wanted: &impl Serialize) -> bool {
    fn within(found: &Value, wanted: &Value) -> bool {
        match (found, wanted) {
            (Value::Object(found), Value::Object(wanted)) => {
                wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| within(found, wanted)))
            }
            (Value::Array(found), Value::Array(wanted)) => {
                found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| within(found, wanted))
            }
            _ => found == wanted,
        }
    }
    match (serde_json::to_value(found), serde_json::to_value(wanted)) {
        (Ok(found), Ok(wanted)) => within(&found, &wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ip: &str, uid: &str) -> Place {
        let (namespace, pod) = ("clustertracing-system".into(), "controller-0".into());
        Place { namespace, pod, uid: uid.into(), ip: ip.parse().unwrap(), grpc_port: 4317, http_port: 8080 }
    }

    #[test]
    fn both_objects_name_the_pod_and_its_ports() {
        let (slice, addresses) = objects(&place("10.244.0.7", "u-1"));
        let port = |name: &str, number: u16| serde_json::json!({ "name": name, "port": number, "protocol": "TCP" });
        let ports = serde_json::json!([port("grpc", 4317), port("http", 8080)]);
        let target = serde_json::json!({ "kind": "Pod", "namespace": "clustertracing-system", "name": "controller-0", "uid": "u-1" });
        let slice = serde_json::to_value(slice).unwrap();
        assert_eq!((&slice["addressType"], &slice["ports"]), (&"IPv4".into(), &ports));
        assert_eq!((&slice["endpoints"][0]["addresses"][0], &slice["endpoints"][0]["targetRef"]), (&"10.244.0.7".into(), &target));
        let subset = &serde_json::to_value(addresses).unwrap()["subsets"][0];
        assert_eq!(
            (&subset["ports"], &subset["addresses"][0]["ip"], &subset["addresses"][0]["targetRef"]),
            (&ports, &"10.244.0.7".into(), &target)
        );
        assert_eq!(objects(&place("fd00::7", "u-1")).0.address_type, "IPv6");
    }

    #[test]
    fn what_stands_as_it_should_is_not_written_again() {
        let wanted = objects(&place("10.244.0.7", "u-1"));
        let mut found = wanted.clone();
        found.0.metadata.resource_version = Some("7".into());
        found.0.metadata.labels.get_or_insert_default().insert("somebody".into(), "else".into());
        found.1.metadata.uid = Some("u".into());
        assert!(holds(&found.0, &wanted.0) && holds(&found.1, &wanted.1));
        for other in [place("10.244.0.8", "u-1"), place("10.244.0.7", "u-2"), place("fd00::7", "u-1")] {
            let (slice, addresses) = objects(&other);
            assert!(!holds(&slice, &wanted.0) && !holds(&addresses, &wanted.1), "{other:?}");
        }
        found.0.endpoints = wanted.0.endpoints.clone().map(|one| [one.clone(), one].concat());
        assert!(!holds(&found.0, &wanted.0), "an address too many");
    }
}
