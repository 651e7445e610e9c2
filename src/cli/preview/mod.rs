//! `diff` and `render`: a ClusterTracing and the manifests of nodes in, what the agents would write out. The manifests are copies of static-pod
//! folders, and need no cluster; or what the agents report of their nodes.
//!
//! What is read is decided by the agents' own code: [`crate::plan::validate`] makes settings of the resource,
//! [`crate::component::change_with_versions`] makes manifests of settings. This module only finds the texts, and shows what came of them.

mod diff;
mod folder;
mod node;
mod output;
mod reported;
mod resource;
mod schema;

use std::io::Read;
use std::path::{Path, PathBuf};

use super::cluster::{self, Connection};
use super::{Exit, Palette, Report};
use crate::api::Reason;
use crate::component::{NotARelease, Version, Versions};
use crate::plan::validate::Validated;
use folder::NodeFolder;
use node::{Obstacle, Preview};

/// Show what applying a ClusterTracing would change in the nodes' static-pod manifests
///
/// For each node and file, the change is printed as a unified diff with the manifest's own comments and order: exactly the bytes that the
/// node's agent would write. The manifests are those that the agents report; with --manifests, copies of static-pod folders, and no cluster is
/// asked. What restarts is said on standard error. Exit code 0: nothing would change; 1: there are differences; 2: the change is refused, or
/// the input is bad; 3: the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # What applying it to this cluster would change
  kubectl tracing diff -f clustertracing.yaml

  # Without a cluster: a copy of a node's /etc/kubernetes/manifests
  kubectl tracing diff -f clustertracing.yaml --manifests ./manifests

  # Several nodes, one folder each: ./nodes/cp-1/*.yaml, ./nodes/cp-2/*.yaml
  kubectl tracing diff -f clustertracing.yaml --manifests ./nodes

  # Before an upgrade: what other versions would get
  kubectl tracing diff -f clustertracing.yaml --manifests ./manifests \\
    --kubernetes-version 1.37.1 --etcd-version 3.7.1")]
pub(super) struct Diff {
    #[command(flatten)]
    input: Input,
    /// Instead of the cluster's: folder with static-pod manifests, a copy of one node's, or, where it holds no file but folders, of several
    /// nodes', each folder named after its node
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Write static-pod manifests as a ClusterTracing would have them, offline
///
/// The manifests of kube-apiserver and etcd are written under their own names, and kube-apiserver's tracing file under its path on the node,
/// all below the output folder (below a folder of each node's name there, where the input has several nodes). They are the bytes that the
/// node's agent would write. Beside them goes .rendered.sha256, a list for sha256sum --check. When any manifest is refused, nothing is written
/// at all. The names of the files written are printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # One node: writes kube-apiserver.yaml, etcd.yaml and etc/kubernetes/clustertracing/tracing-….yaml
  kubectl tracing render -f clustertracing.yaml --manifests ./manifests --output-dir ./out

  # One of several nodes, each with a folder below ./nodes
  kubectl tracing render -f clustertracing.yaml --manifests ./nodes --node cp-1 --output-dir ./out")]
pub(super) struct Render {
    #[command(flatten)]
    input: Input,
    /// Folder with static-pod manifests: a copy of one node's, or, where it holds no file but folders, of several nodes', each folder named
    /// after its node
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Folder to write to. It may be missing, empty, or hold what an earlier render wrote and nobody has touched since: that is replaced
    #[arg(long, value_name = "OUT")]
    output_dir: PathBuf,
}

/// What both commands read.
#[derive(Debug, clap::Args)]
struct Input {
    /// File with the ClusterTracing; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    filename: PathBuf,
    /// The one node to look at; where DIR is one node's folder, its name (else taken from the etcd member's name, which kubeadm makes the
    /// node's)
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// kube-apiserver's release, such as 1.36.3, instead of what the images' tags say
    #[arg(long, value_name = "V")]
    kubernetes_version: Option<String>,
    /// etcd's release, such as 3.6.16, instead of what the images' tags say
    #[arg(long, value_name = "V")]
    etcd_version: Option<String>,
}

/// Why nothing can be shown or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource's file.
    #[error("{path}: cannot be read")]
    Read {
        /// Its name.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The resource.
    #[error("{path}:{mistake}")]
    Resource {
        /// Its file's name.
        path: String,
        /// What is wrong with it.
        mistake: resource::Mistake,
    },
    /// A version on the command line.
    #[error("--{flag}: {problem}: give a whole one, such as {example}")]
    Version {
        /// The option's name.
        flag: &'static str,
        /// One that is good.
        example: &'static str,
        /// What is wrong with it.
        problem: NotARelease,
    },
    /// The manifests.
    #[error(transparent)]
    Folder(folder::Error),
    /// What the agents report.
    #[error(transparent)]
    Reported(reported::Error),
    /// The cluster was asked.
    #[error(transparent)]
    Cluster(cluster::Error),
    /// What was to be written.
    #[error(transparent)]
    Output(output::Error),
}

impl Error {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Cluster(error) => error.exit(),
            Self::Reported(_) => Exit::Findings,
            _ => Exit::BadInput,
        }
    }
}

/// What came of the input.
struct Outcome {
    previews: Vec<Preview>,
    obstacles: Vec<Obstacle>,
    notes: Vec<String>,
}

/// What is said once: no copy of a folder tells it.
const UNTOLD: &str = "note: a folder cannot tell how processes run now, which other files, ports and health a node has, and what its labels \
                      say (platform, rollout.nodeSelector): the operator checks all that before it writes";
const MANAGED: &str = "hint: managed control planes (EKS, GKE, AKS) keep their manifests to themselves, and k3s, k0s and MicroK8s have none: \
                       such clusters cannot be traced this way";

const OTHER_VERSIONS: &str =
    "hint: --kubernetes-version and --etcd-version show what another release would get, and name the one that an image's tag does not";

impl Diff {
    pub(super) async fn run(&self, palette: Palette) -> Result<Report, super::Error> {
        self.difference(palette).await.map_err(super::Error::Preview)
    }

    async fn difference(&self, palette: Palette) -> Result<Report, Error> {
        // a mistake in the resource needs no cluster
        let validated = self.input.resource()?;
        let content = if let Some(manifests) = &self.manifests {
            self.input.folder(manifests)?
        } else {
            let cluster = self.connection.open().await.map_err(Error::Cluster)?;
            let node_tracings = cluster.node_tracings().await.map_err(Error::Cluster)?;
            reported::content(node_tracings, self.input.node.as_deref()).map_err(Error::Reported)?
        };
        let outcome = self.input.preview(&validated, content)?;
        if !outcome.obstacles.is_empty() {
            return Ok(outcome.refused());
        }
        let data = diff::unified(&outcome.previews, palette);
        let exit = if data.is_empty() { Exit::Ok } else { Exit::Findings };
        Ok(Report { data, notes: outcome.notes, exit })
    }
}

impl Render {
    pub(super) fn run(&self) -> Result<Report, Error> {
        let validated = self.input.resource()?;
        let outcome = self.input.preview(&validated, self.input.folder(&self.manifests)?)?;
        if !outcome.obstacles.is_empty() {
            return Ok(outcome.refused());
        }
        let written = output::write(&self.output_dir, &self.manifests, &outcome.previews).map_err(Error::Output)?;
        let data: Vec<_> = written.iter().map(|file| format!("{}\n", file.display())).collect();
        Ok(Report { data: data.concat(), notes: outcome.notes, exit: Exit::Ok })
    }
}

impl Input {
    fn folder(&self, manifests: &Path) -> Result<folder::Content, Error> {
        let mut content = folder::read(manifests, self.node.as_deref()).map_err(Error::Folder)?;
        content.untold.push(UNTOLD.to_owned());
        Ok(content)
    }

    fn preview(&self, validated: &Validated, content: folder::Content) -> Result<Outcome, Error> {
        let versions = Versions {
            kube_apiserver: version("kubernetes-version", "1.36.3", self.kubernetes_version.as_deref())?,
            etcd: version("etcd-version", "3.6.16", self.etcd_version.as_deref())?,
        };
        let folder::Content { nodes, mut notes, untold } = content;
        let settings = validated.clone().at(jiff::Timestamp::now()).target(true).settings;
        let of_node = |node: NodeFolder| node::preview(node, self.node.as_deref(), &settings, versions);
        let (previews, obstacles): (Vec<_>, Vec<_>) = nodes.into_iter().map(of_node).partition(Result::is_ok);
        let previews: Vec<Preview> = previews.into_iter().flatten().collect();
        let obstacles = obstacles.into_iter().filter_map(Result::err).collect();
        notes.extend(previews.iter().flat_map(Preview::notes));
        notes.extend(untold);
        Ok(Outcome { previews, obstacles, notes })
    }

    fn resource(&self) -> Result<Validated, Error> {
        let path = if self.filename == Path::new("-") { "<stdin>".to_owned() } else { self.filename.display().to_string() };
        let text = match path.as_str() {
            "<stdin>" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text)
            }
            _ => std::fs::read_to_string(&self.filename),
        };
        let text = text.map_err(|source| Error::Read { path: path.clone(), source })?;
        resource::read(&text).map_err(|mistake| Error::Resource { path, mistake })
    }
}

impl Outcome {
    /// Nothing is shown of any node when one is refused: the operator changes none before all have been checked.
    fn refused(self) -> Report {
        let has = |reason| self.obstacles.iter().any(|obstacle| obstacle.reason() == Some(reason));
        let mut notes: Vec<String> = self.obstacles.iter().map(|obstacle| super::one_line(obstacle)).collect();
        notes.extend(has(Reason::ManifestNotFound).then(|| MANAGED.to_owned()));
        notes.extend(has(Reason::UnsupportedVersion).then(|| OTHER_VERSIONS.to_owned()));
        if let Some(reason) = self.obstacles.iter().find_map(Obstacle::reason) {
            notes.push(format!("hint: kubectl tracing explain {reason}"));
        }
        Report { data: String::new(), notes, exit: Exit::BadInput }
    }
}

fn version(flag: &'static str, example: &'static str, text: Option<&str>) -> Result<Option<Version>, Error> {
    text.map(|text| text.parse().map_err(|problem| Error::Version { flag, example, problem })).transpose()
}
