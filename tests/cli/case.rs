//! One case: its files, its command lines, and what came of them as one text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Deserialize;

use super::api_server::{Answer, ApiServer, KUBECONFIG};
use super::{plugin, root};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case shows.
    says: String,
    /// What is in the folder before the first run, by path.
    #[serde(default)]
    files: BTreeMap<String, Made>,
    /// What the API server answers. Without any, there is none.
    api: Option<Vec<Answer>>,
    /// The environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Command lines without the program's name.
    runs: Vec<String>,
}

/// Where a file's bytes come from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    /// From here.
    text: Option<String>,
    /// It is a program.
    #[serde(default)]
    program: bool,
    /// From this file or folder of the repository.
    copy: Option<String>,
    /// It is a symbolic link to this.
    link: Option<String>,
    /// It is a folder with nothing in it.
    #[serde(default)]
    folder: bool,
    /// What is cut out of it.
    without: Option<String>,
    /// A byte that no text has is put behind this.
    garble: Option<String>,
}

/// Runs a case; what differs from its golden file, if anything does.
pub(crate) fn check(folder: &Path) -> Option<String> {
    let case: Case = serde_yaml::from_str(&fs::read_to_string(folder.join("case.yaml")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (path, made) in &case.files {
        make(&dir.path().join(path), made);
    }
    let mut text = format!("{}\n", case.says);
    let api = case.api.map(|answers| ApiServer::start(dir.path(), answers));
    for line in &case.runs {
        let before = files(dir.path());
        let mut plugin = plugin(dir.path(), line);
        plugin.env("KUBECONFIG", dir.path().join(KUBECONFIG)).env("PATH", dir.path().join("bin")).env("TMPDIR", dir.path()).envs(&case.env);
        let ended = plugin.output().unwrap();
        let after = files(dir.path());
        let (stdout, stderr) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        write!(text, "\n$ kubectl tracing {line}\n{}\n", ended.status.code().map_or("killed".to_owned(), |code| format!("exit {code}")))
            .unwrap();
        for (name, said) in [("stdout", stdout), ("stderr", stderr)] {
            if !said.is_empty() {
                write!(text, "--- {name}\n{}", said.replace('\x1b', "␛")).unwrap();
            }
        }
        for written in api.iter().flat_map(ApiServer::written) {
            write!(text, "--- request\n{written}").unwrap();
        }
        let written: Vec<_> =
            after.iter().filter(|(path, bytes)| before.get(*path) != Some(*bytes)).map(|(path, _)| format!("+ {path}\n")).collect();
        let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).map(|path| format!("- {path}\n")).collect();
        if !written.is_empty() || !gone.is_empty() {
            write!(text, "--- files\n{}{}", written.concat(), gone.concat()).unwrap();
        }
    }
    let golden = folder.join("golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    (expected != text).then(|| format!("{}:\n{}", golden.display(), similar::TextDiff::from_lines(&expected, &text).unified_diff()))
}

fn make(path: &Path, made: &Made) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match made {
        Made { folder: true, .. } => fs::create_dir_all(path).unwrap(),
        Made { text: Some(text), program, .. } => {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(if *program { 0o755 } else { 0o644 })).unwrap();
        }
        Made { link: Some(to), .. } => std::os::unix::fs::symlink(to, path).unwrap(),
        Made { copy: Some(from), without, garble, .. } => {
            let from = root().join(from);
            if from.is_dir() {
                fs::create_dir_all(path).unwrap();
                for entry in fs::read_dir(from).unwrap() {
                    let entry = entry.unwrap();
                    fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
                }
                return;
            }
            let mut bytes = fs::read_to_string(from).unwrap();
            if let Some(without) = without {
                assert!(bytes.contains(without), "{without:?} is not there");
                bytes = bytes.replacen(without, "", 1);
            }
            let mut bytes = bytes.into_bytes();
            if let Some(behind) = garble {
                let at = bytes.windows(behind.len()).position(|window| window == behind.as_bytes()).unwrap() + behind.len();
                bytes.insert(at, 0xff);
            }
            fs::write(path, bytes).unwrap();
        }
        _ => panic!("{} is made of nothing", path.display()),
    }
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                walk(root, &entry.path(), found);
            } else {
                found.insert(entry.path().strip_prefix(root).unwrap().display().to_string(), fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}
