//! An API server that answers what a case says, and remembers what it was asked to change.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Value, json};

use super::root;

/// The kubeconfig's name in a case's folder.
pub(crate) const KUBECONFIG: &str = ".kubeconfig";

/// What is answered to a request.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// `GET /api/v1/nodes`; a path without `?` answers for every query.
    to: String,
    /// HTTP status.
    #[serde(default = "ok")]
    status: u16,
    /// The body: text as it is, anything else as JSON.
    body: Option<Value>,
    /// The body is this file of the repository; YAML is answered as JSON.
    copy: Option<String>,
}

fn ok() -> u16 {
    200
}

/// Answers until the test ends.
pub(crate) struct ApiServer {
    written: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    /// Listens, and writes the kubeconfig for it into `folder`.
    pub(crate) fn start(folder: &Path, answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
        });
        fs::write(folder.join(KUBECONFIG), config.to_string()).unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&written);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, seen) = (answers.clone(), Arc::clone(&seen));
                std::thread::spawn(move || answer(&stream.unwrap(), &answers, &seen));
            }
        });
        Self { written }
    }

    /// What it was asked to change since this was asked last: method, path and body.
    pub(crate) fn written(&self) -> Vec<String> {
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

/// One request: the connection is closed behind its answer.
fn answer(mut stream: &TcpStream, answers: &[Answer], seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let headers: HashMap<String, String> = reader
        .by_ref()
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    if method != "GET" {
        seen.lock().unwrap().push(format!("{method} {target}\n{}\n", String::from_utf8_lossy(&body)));
    }
    let asked = format!("{method} {target}");
    let path = asked.split_once('?').map_or(asked.as_str(), |(path, _)| path);
    let found = answers.iter().find(|answer| answer.to == asked).or_else(|| answers.iter().find(|answer| answer.to == path));
    let (status, body) = found.map_or_else(not_found, |answer| (answer.status, bytes(answer)));
    let head =
        format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(&[head.into_bytes(), body].concat()).unwrap();
}

fn bytes(answer: &Answer) -> Vec<u8> {
    let file = answer.copy.as_ref().map(|path| fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")));
    match (&answer.body, file) {
        (Some(Value::String(text)), None) => text.clone().into_bytes(),
        (Some(body), None) => body.to_string().into_bytes(),
        (None, Some(file)) if file.trim_start().starts_with('{') => file.into_bytes(),
        (None, Some(file)) => serde_yaml::from_str::<Value>(&file).unwrap().to_string().into_bytes(),
        _ => panic!("{}: neither body nor copy, or both", answer.to),
    }
}

/// What an API server says of a path that it does not know.
fn not_found() -> (u16, Vec<u8>) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404, "details": {},
        "message": "the server could not find the requested resource",
    });
    (404, status.to_string().into_bytes())
}
