//! What a model API server holds: objects with versions, generations, finalizers, owners, and as much of server-side apply as one writer
//! for each field needs.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

/// Plural, namespace (empty where there is none) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) plural: String,
    namespace: String,
    pub(crate) name: String,
}

/// A request, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// With an empty name for the whole collection.
    pub(crate) key: Key,
    pub(crate) subresource: Option<String>,
    query: BTreeMap<String, String>,
    apply: bool,
    body: Value,
}

/// Status code and body.
pub(crate) type Answer = (StatusCode, Value);

#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    stored: BTreeMap<Key, Value>,
    /// What each manager applied last, of an object or its status.
    applied: BTreeMap<(Key, bool, String), Value>,
    /// What was changed since somebody asked, as it was before.
    changed: Vec<(Key, Option<Value>)>,
    version: u64,
    uids: u64,
}

impl Request {
    pub(crate) fn new(parts: &http::request::Parts, body: &[u8]) -> Self {
        let mut path: Vec<_> = parts.uri.path().trim_matches('/').split('/').collect();
        // /api/v1/… and /apis/<group>/<version>/…
        path.drain(..if path[0] == "api" { 2 } else { 3 });
        let namespace = if path[0] == "namespaces" && path.len() > 2 { path.drain(..2).nth(1).unwrap_or_default() } else { "" };
        let part = |at: usize| path.get(at).map(|part| (*part).to_owned());
        let query = parts.uri.query().unwrap_or_default();
        let content_type = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        Self {
            method: parts.method.clone(),
            key: Key { plural: part(0).unwrap_or_default(), namespace: namespace.to_owned(), name: part(1).unwrap_or_default() },
            subresource: part(2),
            query: query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), decoded(v))).collect(),
            apply: content_type.contains("apply-patch"),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
        }
    }

    pub(crate) fn writes(&self) -> bool {
        self.method != Method::GET
    }

    pub(crate) fn manager(&self) -> &str {
        self.query.get("fieldManager").map_or("nobody", String::as_str)
    }
}

/// Percent-decoded: label selectors have slashes and equals signs.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |so_far, part| {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        format!("{so_far}{}{rest}", u8::from_str_radix(code, 16).map_or('%', char::from))
    })
}

fn key(plural: &str, namespace: &str, name: &str) -> Key {
    Key { plural: plural.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Whose fields of what: an object and its status are applied apart.
fn manager_of(request: &Request) -> (Key, bool, String) {
    (request.key.clone(), request.subresource.is_some(), request.manager().to_owned())
}

fn failure(code: StatusCode, reason: &str) -> Answer {
    (code, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16(), "message": "" }))
}

fn conflict() -> Answer {
    failure(StatusCode::CONFLICT, "Conflict")
}

/// The resources whose status is a subresource here.
fn has_status(plural: &str) -> bool {
    ["clustertracings", "nodetracings"].contains(&plural)
}

impl Objects {
    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<&Value> {
        self.stored.get(&key(plural, "", name))
    }

    /// Name and object of everything of this kind, in all namespaces.
    pub(crate) fn all(&self, plural: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.stored.iter().filter(move |(k, _)| k.plural == plural).map(|(k, v)| (k.name.as_str(), v))
    }

    /// What has changed since the last call: each object as it was, and as it is.
    pub(crate) fn changes(&mut self) -> Vec<(Key, Option<Value>, Option<Value>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|(key, old)| (key.clone(), old, self.stored.get(&key).cloned())).collect()
    }

    /// Makes or replaces an object as somebody else does, who is not simulated.
    pub(crate) fn put(&mut self, plural: &str, mut object: Value, now: &str) {
        let key = key(plural, "", object["metadata"]["name"].as_str().expect("an object has a name"));
        if let Some(old) = self.stored.get(&key) {
            for kept in ["uid", "generation", "finalizers", "deletionTimestamp", "managedFields", "creationTimestamp"] {
                object["metadata"][kept] = old["metadata"][kept].clone();
            }
            object["status"] = if has_status(plural) { old["status"].clone() } else { object["status"].take() };
        }
        self.store(&key, object, now);
    }

    /// Deletes an object as somebody else does.
    pub(crate) fn remove(&mut self, plural: &str, name: &str, now: &str) {
        let key = key(plural, "", name);
        if self.stored.contains_key(&key) {
            self.delete(&key, &Value::Null, now);
        }
    }

    /// Removes everything that is owned by something that is not there any more.
    pub(crate) fn collect_garbage(&mut self) {
        let uids: BTreeSet<&str> = self.stored.values().filter_map(|o| o["metadata"]["uid"].as_str()).collect();
        let is_orphan = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            let mut gone = owners.map(|o| o["uid"].as_str().is_some_and(|uid| !uids.contains(uid))).peekable();
            gone.peek().is_some() && gone.all(|gone| gone)
        };
        let orphans: Vec<_> = self.stored.iter().filter(|(_, object)| is_orphan(object)).map(|(key, _)| key.clone()).collect();
        for key in &orphans {
            self.take_away(key);
        }
    }

    fn take_away(&mut self, key: &Key) {
        let old = self.stored.remove(key);
        self.applied.retain(|(k, ..), _| k != key);
        self.changed.push((key.clone(), old));
    }

    /// Answers a request; a write has taken effect then.
    pub(crate) fn answer(&mut self, request: &Request, now: &str) -> Answer {
        let there = self.stored.get(&request.key);
        match (request.method.as_str(), there) {
            ("GET", _) if request.key.name.is_empty() => (StatusCode::OK, self.list(request)),
            ("GET", Some(object)) => (StatusCode::OK, object.clone()),
            ("POST", _) => self.create(request, now),
            ("PUT", Some(old)) => {
                if is_stale(&request.body, old) {
                    return conflict();
                }
                let object = Self::taken_over(request, old, request.body.clone());
                self.written(request, object, now)
            }
            ("PATCH", None) if request.apply && request.subresource.is_none() => {
                if request.body["metadata"]["resourceVersion"].is_string() {
                    return conflict();
                }
                let mut object = request.body.clone();
                object["metadata"]["name"] = json!(request.key.name);
                self.remember(request);
                self.written(request, object, now)
            }
            ("PATCH", Some(old)) => {
                if is_stale(&request.body, old) {
                    return conflict();
                }
                let mut object = old.clone();
                let mut patch = request.body.clone();
                if let Some(metadata) = patch["metadata"].as_object_mut() {
                    metadata.remove("resourceVersion");
                }
                if request.apply {
                    if let Some(before) = self.applied.get(&manager_of(request)) {
                        take_out(&mut object, before, &patch);
                    }
                    self.remember(request);
                }
                merge(&mut object, &patch);
                let object = Self::taken_over(request, &self.stored[&request.key], object);
                self.written(request, object, now)
            }
            ("DELETE", Some(_)) => self.delete(&request.key, &request.body, now),
            _ => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    }

    fn list(&self, request: &Request) -> Value {
        let selector = request.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        let selected = |object: &Value| {
            selector.split(',').filter(|term| !term.is_empty()).all(|term| {
                let (label, value) = term.split_once('=').map_or((term, None), |(label, value)| (label, Some(value)));
                let found = object["metadata"]["labels"][label].as_str();
                value.map_or(found.is_some(), |value| found == Some(value))
            })
        };
        let in_collection = |k: &Key| k.plural == request.key.plural && k.namespace == request.key.namespace;
        let items: Vec<_> = self.stored.iter().filter(|(k, o)| in_collection(k) && selected(o)).map(|(_, o)| o.clone()).collect();
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": self.version.to_string() }, "items": items })
    }

    fn create(&mut self, request: &Request, now: &str) -> Answer {
        let mut object = request.body.clone();
        if object["metadata"]["name"].is_null() {
            let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default();
            object["metadata"]["name"] = json!(format!("{prefix}{}", self.uids));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = Request { key: Key { name, ..request.key.clone() }, ..request.clone() };
        if self.stored.contains_key(&request.key) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        if has_status(&request.key.plural) {
            object.as_object_mut().map(|o| o.remove("status"));
        }
        self.written(&request, object, now)
    }

    /// What a write to the object leaves of its status, and the other way round.
    fn taken_over(request: &Request, old: &Value, mut new: Value) -> Value {
        if request.subresource.as_deref() == Some("status") {
            let status = new["status"].take();
            new = old.clone();
            new["status"] = status;
        } else if has_status(&request.key.plural) {
            new["status"] = old["status"].clone();
        }
        for kept in ["uid", "generation", "managedFields", "creationTimestamp", "deletionTimestamp"] {
            new["metadata"][kept] = old["metadata"][kept].clone();
        }
        new
    }

    fn remember(&mut self, request: &Request) {
        self.applied.insert(manager_of(request), request.body.clone());
    }

    /// Stores what a request made of the object, with the manager's time.
    fn written(&mut self, request: &Request, mut object: Value, now: &str) -> Answer {
        if self.stored.get(&request.key).is_some_and(|old| same(old, &object)) {
            return (StatusCode::OK, self.stored[&request.key].clone());
        }
        let entry = json!({
            "manager": request.manager(), "operation": if request.apply { "Apply" } else { "Update" }, "subresource": request.subresource,
            "time": now, "apiVersion": object["apiVersion"], "fieldsType": "FieldsV1", "fieldsV1": {},
        });
        let mut entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.retain(|e| ["manager", "operation", "subresource"].iter().any(|field| e[field] != entry[field]));
        entries.push(entry);
        object["metadata"]["managedFields"] = json!(entries);
        self.store(&request.key, object, now);
        let stored = self.stored.get(&request.key).cloned();
        (StatusCode::OK, stored.unwrap_or_else(|| request.body.clone()))
    }

    fn store(&mut self, key: &Key, mut object: Value, now: &str) {
        self.version += 1;
        let old = self.stored.get(key);
        let metadata = &mut object["metadata"];
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        if old.is_none() {
            self.uids += 1;
            metadata["uid"] = json!(format!("uid-{}-{}", key.name, self.uids));
            metadata["creationTimestamp"] = json!(now);
        }
        metadata["resourceVersion"] = json!(self.version.to_string());
        let generation = old.map_or(0, |old| old["metadata"]["generation"].as_i64().unwrap_or_default());
        let is_deleted = |object: &Value| object["metadata"]["deletionTimestamp"].is_string();
        let changed = old.is_none_or(|old| old["spec"] != object["spec"] || is_deleted(old) != is_deleted(&object));
        object["metadata"]["generation"] = json!(generation + i64::from(changed));
        without_nulls(&mut object);
        let metadata = &object["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if is_deleted(&object) && !held {
            self.take_away(key);
        } else {
            let old = self.stored.insert(key.clone(), object);
            self.changed.push((key.clone(), old));
        }
    }

    fn delete(&mut self, key: &Key, body: &Value, now: &str) -> Answer {
        let object = &self.stored[key];
        let wanted = &body["preconditions"]["uid"];
        if wanted.is_string() && *wanted != object["metadata"]["uid"] {
            return conflict();
        }
        let mut object = object.clone();
        if object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()) {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!(now);
                self.store(key, object, now);
            }
        } else {
            self.take_away(key);
        }
        (StatusCode::OK, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }
}

/// Whether a write was made from an older version of the object.
fn is_stale(body: &Value, there: &Value) -> bool {
    let version = &body["metadata"]["resourceVersion"];
    version.is_string() && *version != there["metadata"]["resourceVersion"]
}

/// Equal but for what every write changes. A write that changes nothing makes no new version.
fn same(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["resourceVersion", "managedFields", "generation"] {
                metadata.remove(field);
            }
        }
        without_nulls(&mut object);
        object
    };
    bare(old) == bare(new)
}

/// JSON merge patch, which for what one manager owns alone is server-side apply too.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (field, value) in patch {
        if value.is_null() {
            into.as_object_mut().map(|o| o.remove(field));
        } else {
            merge(&mut into[field], value);
        }
    }
}

/// Takes out of `object` what was applied before and is not any more.
fn take_out(object: &mut Value, before: &Value, now: &Value) {
    let (Some(object), Value::Object(before)) = (object.as_object_mut(), before) else { return };
    for (field, value) in before {
        match (object.get_mut(field), now.get(field)) {
            (Some(_), None) => drop(object.remove(field)),
            (Some(there), Some(now)) => take_out(there, value, now),
            (None, _) => {}
        }
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
