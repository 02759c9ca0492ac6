//! The command line, as one table of arguments from which parser and help come.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Kubernetes in one program.
#[derive(Parser, Debug)]
#[command(name = "krate", version = krate_version(), about, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

const fn krate_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a cluster on this machine, or resume a stopped one
    Up(Up),
    /// Remove a cluster and everything that it made
    Down(Down),
    /// Show the clusters of this machine and what runs in them
    Status(Status),
    /// Run a control plane, and by default a node, on this host
    Server(Server),
    /// Run a node that joins a server
    Agent(Agent),
    /// Print a cluster's kubeconfig
    Kubeconfig(Named),
    /// Print the log of a cluster's processes
    Logs(Logs),
    /// Import, build, list, pull and remove the cluster's images
    Image(ImageArgs),
    /// Give a cluster's store a new encryption key
    RotateKeys(RotateKeys),
    /// Measure a Kubernetes server, this one or another
    Bench(Bench),
    /// Print the version
    Version,
    /// The network between a cluster's nodes (started by `up`)
    #[command(hide = true)]
    Fabric(Fabric),
    /// The holder of a node's namespaces (started by `up`)
    #[command(hide = true)]
    NodeHolder(NodeHolder),
    /// The demo's web application
    #[command(hide = true)]
    DemoWeb(DemoWeb),
}

#[derive(ClapArgs, Debug, Clone)]
pub struct Named {
    /// The cluster's name
    #[arg(long, default_value = "krate", global = true)]
    pub name: String,
    /// Folder of the cluster's state [default: /var/lib/krate/NAME]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// Whether pods reach what lies outside the cluster.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Nothing leaves the cluster's own network
    None,
    /// Connections leave with the address of the node; out of a cluster of `up`, TCP and DNS are carried through
    /// this machine
    Nat,
}

impl std::fmt::Display for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Nat => "nat",
        })
    }
}

#[derive(ClapArgs, Debug)]
pub struct Up {
    #[command(flatten)]
    pub cluster: Named,
    /// How many nodes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub nodes: u8,
    /// Publish a NodePort on this machine, as HOST:NODEPORT where HOST is a port or 127.0.0.1:port;
    /// may be repeated
    #[arg(long, value_name = "HOST:NODEPORT")]
    pub publish: Vec<Publish>,
    /// Whether pods reach what lies outside the cluster
    #[arg(long, value_enum, default_value = "none")]
    pub egress: Egress,
    /// The kubeconfig to write the cluster's context into [default: $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Deploy a small web application, fetch its page and say what to type next
    #[arg(long)]
    pub demo: bool,
}

/// A NodePort on a loopback address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Publish {
    pub listen: SocketAddr,
    pub node_port: u16,
}

impl std::str::FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not of the form HOST:NODEPORT, such as 8080:30080");
        let (host, node_port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let node_port: u16 = node_port.parse().map_err(|_| wrong())?;
        let listen = match host.parse::<u16>() {
            Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
            Err(_) => host.parse().map_err(|_| wrong())?,
        };
        if !listen.ip().is_loopback() {
            return Err(format!(
                "{} is not a loopback address; ports are published on this machine only",
                listen.ip()
            ));
        }
        Ok(Self { listen, node_port })
    }
}

#[derive(ClapArgs, Debug)]
pub struct Down {
    #[command(flatten)]
    pub cluster: Named,
    /// Stop the cluster's processes and keep its state, so that `up` resumes it
    #[arg(long)]
    pub keep: bool,
    /// The kubeconfig to remove the cluster's context from [default: $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub struct Status {
    #[command(flatten)]
    pub cluster: Named,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(ClapArgs, Debug, Clone)]
pub struct Server {
    /// Folder of the server's state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/krate/server")]
    pub data_dir: PathBuf,
    /// Address and port on which the API is served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// A second address for the API, opened before the node's namespaces are entered
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub host_listen: Option<SocketAddr>,
    /// Address at which other nodes and pods reach the API [default: the node's]
    #[arg(long)]
    pub advertise: Option<IpAddr>,
    /// Further names and addresses for the server's certificate
    #[arg(long = "tls-san", value_name = "NAME")]
    pub tls_san: Vec<String>,
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cidr: String,
    /// An EncryptionConfiguration: how values of the store are encrypted. Changes are taken at once
    /// [default: DATA_DIR/encryption.yaml, made with a key for Secrets]
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Run the control plane only, without a node
    #[arg(long)]
    pub disable_agent: bool,
    /// Whether controllers and scheduler work only while this server holds their leases
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub leader_elect: bool,
    /// Leave scheduling to another scheduler
    #[arg(long)]
    pub disable_scheduler: bool,
    #[command(flatten)]
    pub node: NodeArgs,
}

/// A list that is one argument.
type Thresholds = Vec<krate_kubelet::eviction::threshold::Threshold>;

/// Amounts of what a node has, by name.
type Amounts = std::collections::BTreeMap<String, krate_api::quantity::Quantity>;

/// Reads `cpu=100m,memory=200Mi`.
fn amounts(text: &str) -> Result<Amounts, String> {
    const KNOWN: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];
    let one = |part: &str| {
        let (name, amount) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=AMOUNT"))?;
        if !KNOWN.contains(&name) {
            return Err(format!("{name:?} cannot be reserved, only {}", KNOWN.join(", ")));
        }
        let amount = krate_api::quantity::Quantity::parse(amount)
            .ok()
            .filter(|amount| !amount.is_negative())
            .ok_or_else(|| format!("{amount:?} is not an amount, such as 100m or 200Mi"))?;
        Ok((name.to_owned(), amount))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

/// What a node needs to know, in `server` as in `agent`.
#[derive(ClapArgs, Debug, Clone)]
pub struct NodeArgs {
    /// The node's name [default: the host's]
    #[arg(long)]
    pub node_name: Option<String>,
    /// The node's address [default: the server's --listen, or that of the default route]
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// Whether pods reach what lies outside the cluster
    #[arg(long, value_enum, default_value = "nat")]
    pub egress: Egress,
    /// Folder of the node's images [default: images in the folder of the node's state, which is
    /// DATA_DIR/node of a server and DATA_DIR of an agent]
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Folder of the volumes that the cluster makes; the same on all nodes
    #[arg(long, value_name = "DIR", default_value = "/var/lib/krate/volumes")]
    pub volume_dir: PathBuf,
    /// All nodes see the same files in the folder of volumes, so that a pod finds its data on each of them
    #[arg(long)]
    pub shared_volumes: bool,
    /// Folder whose pod manifests this node runs by itself
    #[arg(long, value_name = "DIR")]
    pub static_pods: Option<PathBuf>,
    /// Below what a node evicts pods, as memory.available<100Mi,nodefs.available<10% [default: Kubernetes' own]
    #[arg(long, value_name = "SIGNAL<AMOUNT,...", value_parser = krate_kubelet::eviction::threshold::parse)]
    pub eviction_hard: Option<Thresholds>,
    /// What the machine's own programs need and pods cannot have, as cpu=100m,memory=200Mi
    #[arg(long, value_name = "NAME=AMOUNT,...", value_parser = amounts)]
    pub system_reserved: Option<Amounts>,
    /// What Kubernetes' own programs on the node need and pods cannot have
    #[arg(long, value_name = "NAME=AMOUNT,...", value_parser = amounts)]
    pub kube_reserved: Option<Amounts>,
    /// Path of the node's control group below the root of each hierarchy
    #[arg(long, value_name = "PATH", default_value = "krate/node")]
    pub cgroup: String,
    /// Enter the namespaces of this process first
    #[arg(long, value_name = "PID", hide = true)]
    pub enter: Option<i32>,
    /// Say on standard output when ready
    #[arg(long, hide = true)]
    pub notify: bool,
    /// What to log: error, warn, info, debug, or a filter such as krate_kubelet=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

#[derive(ClapArgs, Debug, Clone)]
pub struct Agent {
    /// Folder of the node's state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/krate/agent")]
    pub data_dir: PathBuf,
    /// The server to join; its log says what to give here and in the next two
    #[arg(long, value_name = "URL", requires_all = ["token", "ca_cert_hash"])]
    pub server: Option<String>,
    /// The token that the server gave out, to join with the first time
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Digest of the key of the server's authority, as sha256:HEX
    #[arg(long, value_name = "HASH")]
    pub ca_cert_hash: Option<String>,
    /// A kubeconfig with the node's identity [default: the one in the data folder]
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    pub kubeconfig: Option<PathBuf>,
    /// A kubeconfig with the identity of the node's service proxy and DNS [default: network.kubeconfig beside
    /// the other]
    #[arg(long, value_name = "PATH")]
    pub network_kubeconfig: Option<PathBuf>,
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cidr: String,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(ClapArgs, Debug)]
pub struct Logs {
    #[command(flatten)]
    pub cluster: Named,
    /// Of which process: server, a node's name, or fabric [default: all]
    pub process: Option<String>,
    /// Go on as lines are written
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines of each from the end
    #[arg(long, default_value_t = 100)]
    pub tail: usize,
}

#[derive(ClapArgs, Debug)]
pub struct RotateKeys {
    #[command(flatten)]
    pub cluster: Named,
    /// The file with the keys [default: encryption.yaml in the folder of the cluster's server]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub struct ImageArgs {
    #[command(flatten)]
    pub cluster: Named,
    /// Folder of a node's images in place of a cluster's, where `krate server` or `krate agent` runs:
    /// /var/lib/krate/server/node/images, /var/lib/krate/agent/images, or the node's own --image-dir
    #[arg(long, value_name = "DIR", global = true, conflicts_with_all = ["name", "data_dir"])]
    pub image_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Subcommand, Debug)]
pub enum ImageCommand {
    /// Import an OCI archive or what `docker save` wrote
    Import {
        /// The archive
        file: PathBuf,
    },
    /// List the images
    List,
    /// Make an image from files, without any other tool
    Build(ImageBuild),
    /// Remove an image
    Remove {
        /// The image, such as app:dev
        image: String,
    },
    /// Pull an image from a registry
    Pull {
        /// The image, such as nginx:1
        image: String,
        /// USER:PASSWORD for the registry
        #[arg(long)]
        creds: Option<String>,
    },
}

#[derive(ClapArgs, Debug)]
pub struct ImageBuild {
    /// Name of the new image
    #[arg(long, short = 't')]
    pub tag: String,
    /// Image to begin with [default: an empty one]
    #[arg(long)]
    pub from: Option<String>,
    /// SOURCE:DESTINATION; a folder is copied with what it holds
    #[arg(long, value_name = "SRC:DST")]
    pub copy: Vec<String>,
    /// Program that the container runs; repeat for its fixed arguments
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// Default arguments
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// KEY=VALUE
    #[arg(long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Folder in which the program runs
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User (and group) as UID[:GID] or a name of the image
    #[arg(long, value_name = "UID")]
    pub user: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub struct Bench {
    /// The server to measure [default: clusters of its own, made for it and removed afterwards]
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Image of the pods that are waited for until they run; the nodes have it, or pull it
    #[arg(long, value_name = "IMAGE", default_value = crate::demo::IMAGE)]
    pub image: String,
    /// Only the rows whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Process whose CPU and memory count as the server's; may be repeated
    #[arg(long, value_name = "PID")]
    pub pid: Vec<i32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(ClapArgs, Debug)]
pub struct Fabric {
    #[arg(long)]
    pub data_dir: PathBuf,
}

#[derive(ClapArgs, Debug)]
pub struct NodeHolder {
    #[arg(long)]
    pub data_dir: PathBuf,
    #[arg(long)]
    pub node_name: String,
    #[arg(long)]
    pub address: IpAddr,
    #[arg(long)]
    pub fabric: i32,
    #[arg(long, value_enum, default_value = "none")]
    pub egress: Egress,
}

#[derive(ClapArgs, Debug)]
pub struct DemoWeb {
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_named() {
        let all = amounts("cpu=100m, memory=200Mi").unwrap();
        assert_eq!((all["cpu"].text().0, all["memory"].text().0), ("100m".to_owned(), "200Mi".to_owned()));
        assert!(amounts("cpu").is_err() && amounts("gpu=1").is_err() && amounts("cpu=-1").is_err());
    }
    use clap::CommandFactory as _;

    #[test]
    fn the_table_of_arguments_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_cluster_is_named_before_or_after_what_is_done_with_its_images() {
        for words in [["--name", "a", "list"], ["list", "--name", "a"]] {
            let args = Args::try_parse_from(["krate", "image"].iter().chain(&words)).unwrap();
            assert!(matches!(args.command, Command::Image(image) if image.cluster.name == "a"));
        }
    }

    #[test]
    fn published_ports_are_loopback_only() {
        let p: Publish = "8080:30080".parse().unwrap();
        assert_eq!((p.listen.to_string().as_str(), p.node_port), ("127.0.0.1:8080", 30080));
        assert!("0.0.0.0:80:30080".parse::<Publish>().unwrap_err().contains("not a loopback"));
        assert!("x".parse::<Publish>().is_err());
    }
}
