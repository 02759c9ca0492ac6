//! What a cluster is, as kept in its folder, and where its parts live in there.

use crate::cli::{Egress, Named, Publish};
use crate::ui::{Explain, Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Folder of all clusters, and where each one's lives unless `--data-dir` says otherwise.
pub const CLUSTERS: &str = "/var/lib/krate";

/// What `krate server` and `krate agent` keep in that folder unless told otherwise: no cluster takes their names.
const OF_HOSTS: [&str; 3] = ["server", "agent", "volumes"];

/// The network between the nodes of one cluster. It exists inside the cluster's own namespaces only.
pub const FABRIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 29, 0, 1);
pub const FABRIC_PREFIX: u8 = 16;

/// What was asked for at the first `up`, and kept for every later one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub name: String,
    pub nodes: u8,
    pub api_port: u16,
    pub publish: Vec<Publish>,
    pub egress: Egress,
    pub version: String,
}

impl Spec {
    /// `node-1`, `node-2`, ...; the first one also runs the control plane.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| format!("node-{n}")).collect()
    }

    /// The address of a node by its number, counted from 0.
    pub fn node_ip(&self, index: usize) -> IpAddr {
        let [a, b, c, d] = FABRIC_GATEWAY.octets();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d.saturating_add(1).saturating_add(index as u8)))
    }

    /// The name of the context in kubeconfig files.
    pub fn context(&self) -> String {
        if self.name == "krate" { self.name.clone() } else { format!("krate-{}", self.name) }
    }
}

/// A cluster's folder.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    pub dir: PathBuf,
}

impl Cluster {
    pub fn of(named: &Named) -> Outcome<Self> {
        let name = &named.name;
        let valid = !name.is_empty()
            && name.len() <= 40
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !valid {
            return Err(Failure::new(
                format!("{name:?} is not a cluster name"),
                "Use at most 40 lower case letters, digits and dashes, beginning and ending with a letter or digit.",
            ));
        }
        if named.data_dir.is_none() && OF_HOSTS.contains(&name.as_str()) {
            return Err(Failure::new(
                format!("{CLUSTERS}/{name} belongs to `krate server` and `krate agent`"),
                "Give the cluster another --name, or a --data-dir of its own.",
            ));
        }
        let dir = named.data_dir.clone().unwrap_or_else(|| Path::new(CLUSTERS).join(name));
        let dir = std::path::absolute(&dir)
            .explain("the data folder cannot be found", "Give another --data-dir.")?;
        Ok(Self { name: name.clone(), dir })
    }

    pub fn exists(&self) -> bool {
        self.spec_file().exists()
    }

    pub fn load(&self) -> Outcome<Spec> {
        let next = "See `krate status` for the clusters of this machine, or start one with `krate up`.";
        let text = std::fs::read(self.spec_file())
            .map_err(|_| Failure::new(format!("there is no cluster named {:?}", self.name), next))?;
        serde_json::from_slice(&text).explain(
            "the cluster's description is damaged",
            "Remove the cluster with `krate down` and start anew.",
        )
    }

    pub fn save(&self, spec: &Spec) -> Outcome<()> {
        let next = "Check the disk and the rights of the data folder.";
        std::fs::create_dir_all(&self.dir).explain("the data folder cannot be made", next)?;
        let text = serde_json::to_vec_pretty(spec).explain("internal error", "")?;
        let temporary = self.dir.join("cluster.json.new");
        std::fs::write(&temporary, text).explain("the data folder cannot be written", next)?;
        std::fs::rename(&temporary, self.spec_file()).explain("the data folder cannot be written", next)
    }

    /// The cluster's group below the root of each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("krate/{}", self.name)
    }

    /// The node's group below the root of each hierarchy.
    pub fn node_cgroup(&self, node: &str) -> String {
        format!("krate/{}/{node}", self.name)
    }

    pub fn spec_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }
    pub fn server_dir(&self) -> PathBuf {
        self.dir.join("server")
    }
    pub fn images_dir(&self) -> PathBuf {
        self.dir.join("images")
    }
    /// Folders of the persistent volumes, which all nodes see.
    pub fn volumes_dir(&self) -> PathBuf {
        self.dir.join("volumes")
    }
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }
    /// The data folder of a node's process: the first node's is the server's.
    pub fn process_dir(&self, node: &str) -> PathBuf {
        if node == "node-1" { self.server_dir() } else { self.node_dir(node) }
    }
    pub fn log_file(&self, process: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{process}.log"))
    }
    pub fn record_file(&self, process: &str) -> PathBuf {
        self.dir.join("processes").join(format!("{process}.json"))
    }
    pub fn node_kubeconfig(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("kubeconfig")
    }
    /// The administrator's kubeconfig, kept by the server.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.server_dir().join("admin.kubeconfig")
    }

    /// The clusters that live in the default place.
    pub fn all() -> Vec<Self> {
        let mut clusters: Vec<Self> = std::fs::read_dir(CLUSTERS)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(Self { name, dir: entry.path() })
            })
            .filter(Self::exists)
            .collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        clusters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Args;
    use clap::Parser as _;
    use std::collections::BTreeSet;

    fn cluster(name: &str, data_dir: Option<&str>) -> Result<PathBuf, String> {
        let named = Named { name: name.into(), data_dir: data_dir.map(Into::into) };
        Cluster::of(&named).map(|cluster| cluster.dir).map_err(|failure| failure.what)
    }

    #[test]
    fn a_cluster_has_a_folder_of_its_own() {
        assert_eq!(cluster("dev", None), Ok("/var/lib/krate/dev".into()));
        assert!(cluster("Dev", None).unwrap_err().contains("is not a cluster name"));
        // What hosts keep there by default would go with the cluster.
        let defaults = ["server", "agent"].map(|verb| format!("{:?}", Args::try_parse_from(["krate", verb])));
        let kept =
            defaults.iter().flat_map(|d| d.split('"')).filter_map(|w| w.strip_prefix("/var/lib/krate/"));
        let kept: BTreeSet<&str> = kept.filter_map(|path| path.split('/').next()).collect();
        assert_eq!(kept, OF_HOSTS.into());
        for name in kept {
            assert!(cluster(name, None).unwrap_err().contains("belongs to `krate server`"), "{name}");
            assert_eq!(cluster(name, Some("/elsewhere")), Ok("/elsewhere".into()));
        }
    }
}
