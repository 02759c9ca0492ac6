//! A container's mounts, made in a mount namespace of its own.
//!
//! Nothing is ever mounted where the node can see it: the root file system's overlay, the volumes and the
//! kernel's file systems live and die with the container. Device nodes work only where they were put
//! deliberately, because everything else is mounted `nodev` (except for privileged containers).

use super::{Doing, Result, target};
use crate::cgroup::Hierarchies;
use crate::cri::MountPropagation;
use crate::kernel::mount::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_READONLY, ATTR_STRICTATIME};
use crate::shim::spec::{ContainerSpec, MountKind, MountSpec, RootfsSpec};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use nix::unistd::{chdir, pivot_root, symlinkat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

const NONE: Option<&Path> = None;
/// What every container finds in `/dev`.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEV_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub struct Root {
    root: OwnedFd,
}

/// A volume, copied from the node's mounts but not yet put in its place.
struct Volume<'a> {
    spec: &'a MountSpec,
    tree: Option<OwnedFd>,
}

impl Root {
    pub fn prepare(spec: &ContainerSpec, hierarchies: &Hierarchies, shm: Option<PathBuf>) -> Result<Self> {
        // Volumes first: once the node's mounts are private, those that shall propagate have lost their peers.
        let volumes: Vec<Volume<'_>> =
            spec.mounts.iter().map(|m| Volume::copy(m, spec.privileged)).collect::<Result<_>>()?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).doing("separate the mounts")?;
        overlay(&spec.rootfs, spec.privileged)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&spec.rootfs.target, flags, Mode::empty()).doing("open the root file system")?;
        let this = Self { root };
        for volume in volumes {
            let what = volume.spec.target.clone();
            let done = match &volume.spec.kind {
                MountKind::Cgroup => this.cgroups(spec, volume.spec, hierarchies),
                MountKind::Devpts => this.put(volume).and_then(|()| this.device_nodes(spec, shm.as_deref())),
                _ => this.put(volume),
            };
            done.doing(format_args!("error mounting {what:?}"))?;
        }
        target::make_folders(&this.root, relative(&spec.process.cwd))
            .doing(format_args!("make the working directory {:?}", spec.process.cwd))?;
        Ok(this)
    }

    fn put(&self, volume: Volume<'_>) -> Result<()> {
        let spec = volume.spec;
        let tree = match volume.tree {
            Some(tree) => tree,
            None => new_file_system(spec)?,
        };
        let is_folder =
            fstat(&tree).doing("look at the source")?.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits();
        let place =
            target::make(&self.root, relative(&spec.target), is_folder).doing("make the mount point")?;
        mount::attach(tree.as_fd(), place.as_fd()).doing("mount")
    }

    /// `/dev`'s nodes, links, and the pod's shared memory. Comes after `/dev` and `/dev/pts` are there.
    fn device_nodes(&self, spec: &ContainerSpec, shm: Option<&Path>) -> Result<()> {
        for device in DEVICES {
            let source = Path::new("/dev").join(device);
            self.bind_device(&source, &format!("/dev/{device}"), false, device != "tty")?;
        }
        for device in &spec.devices {
            self.bind_device(&device.source, &device.target, device.readonly, device.required)?;
        }
        let dev = target::open(&self.root, Path::new("dev")).doing("open /dev")?;
        for (name, to) in DEV_LINKS {
            match symlinkat(to, &dev, name) {
                Err(error) if error != nix::errno::Errno::EEXIST => {
                    return Err(format!("link /dev/{name}: {error}"));
                }
                _ => {}
            }
        }
        let Some(shm) = shm else { return Ok(()) };
        let tree = mount::copy_tree(shm, false).doing("take the pod's shared memory")?;
        let place = target::make(&self.root, Path::new("dev/shm"), true).doing("make /dev/shm")?;
        mount::attach(tree.as_fd(), place.as_fd()).doing("mount /dev/shm")
    }

    fn bind_device(&self, source: &Path, place: &str, readonly: bool, required: bool) -> Result<()> {
        let tree = match mount::copy_tree(source, false) {
            Err(_) if !required => return Ok(()),
            other => other.doing(format_args!("device {}", source.display()))?,
        };
        // The node's own /dev may be nodev when this program runs inside a container itself.
        let set = if readonly { ATTR_READONLY } else { 0 };
        let clear = if readonly { ATTR_NODEV } else { ATTR_NODEV | ATTR_READONLY };
        mount::set_attributes(tree.as_fd(), false, set, clear, 0).doing("adjust a device")?;
        let place = target::make(&self.root, relative(place), false).doing(format_args!("make {place}"))?;
        mount::attach(tree.as_fd(), place.as_fd()).doing("mount a device")
    }

    /// The container's own groups, read-only unless it is privileged.
    fn cgroups(&self, spec: &ContainerSpec, at: &MountSpec, hierarchies: &Hierarchies) -> Result<()> {
        let attributes = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | if at.readonly { ATTR_READONLY } else { 0 };
        let own = spec.cgroup.trim_start_matches('/');
        let bind = |from: &Path, to: &str| -> Result<()> {
            let tree = mount::copy_tree(from, false).doing("take the control group")?;
            mount::set_attributes(tree.as_fd(), false, attributes, 0, MsFlags::MS_PRIVATE.bits())
                .doing("adjust it")?;
            let place = target::make(&self.root, relative(to), true).doing("make its mount point")?;
            mount::attach(tree.as_fd(), place.as_fd()).doing("mount it")
        };
        if hierarchies.is_unified() {
            let from = hierarchies.v2_mount().map(|root| root.join(own));
            return from.map_or(Ok(()), |from| bind(&from, &at.target));
        }
        let options = [("mode", Some("755"))];
        let tmpfs = mount::new_mount("tmpfs", &options, attributes & !ATTR_READONLY).doing("make a tmpfs")?;
        let place = target::make(&self.root, relative(&at.target), true).doing("make the mount point")?;
        mount::attach(tmpfs.as_fd(), place.as_fd()).doing("mount a tmpfs")?;
        for (controller, root) in hierarchies.v1_mounts() {
            let from = root.join(own);
            let name = root.file_name().map_or(controller, |name| name.to_str().unwrap_or(controller));
            if from.is_dir() && target::open(&self.root, relative(&format!("{}/{name}", at.target))).is_err()
            {
                bind(&from, &format!("{}/{name}", at.target))?;
            }
        }
        mount::set_attributes(tmpfs.as_fd(), false, attributes, 0, 0).doing("make it read-only")
    }

    /// Makes the prepared tree the root of this process and forgets the node's.
    pub fn enter(&self, spec: &ContainerSpec) -> Result<()> {
        chdir(&spec.rootfs.target).doing("enter the root file system")?;
        // The old root is put over the new one and then taken away, which needs no folder for it.
        pivot_root(".", ".").doing("pivot_root")?;
        umount2(".", MntFlags::MNT_DETACH).doing("leave the node's mounts")?;
        chdir("/").doing("enter the new root")
    }

    /// After this the container's rules hold: masked and read-only paths, read-only root.
    pub fn seal(&self, spec: &ContainerSpec) -> Result<()> {
        let cwd = spec.process.cwd.as_str();
        chdir(cwd).doing(format_args!("chdir to cwd ({cwd:?}) set in config.json failed"))?;
        for path in &spec.readonly_paths {
            bind_over_itself(Path::new(path)).doing(format_args!("make {path} read-only"))?;
        }
        for path in &spec.masked_paths {
            mask(Path::new(path)).doing(format_args!("mask {path}"))?;
        }
        if spec.rootfs.readonly {
            let root = target::open(&self.root, Path::new("/")).doing("open the root")?;
            mount::set_attributes(root.as_fd(), false, ATTR_READONLY, 0, 0)
                .doing("make the root read-only")?;
        }
        Ok(())
    }
}

impl<'a> Volume<'a> {
    fn copy(spec: &'a MountSpec, privileged: bool) -> Result<Self> {
        let tree = match &spec.kind {
            MountKind::Bind { source } => Some(copy_source(source)?),
            MountKind::Layers { folder, layers, sub_path } => Some(image_tree(folder, layers, sub_path)?),
            _ => return Ok(Self { spec, tree: None }),
        };
        let volume = Self { spec, tree };
        volume.adjust(privileged).doing(format_args!("error mounting {:?}", spec.target))?;
        Ok(volume)
    }

    fn adjust(&self, privileged: bool) -> Result<()> {
        let Some(tree) = &self.tree else { return Ok(()) };
        let propagation = match self.spec.propagation {
            MountPropagation::Private => MsFlags::MS_PRIVATE,
            MountPropagation::HostToContainer => MsFlags::MS_SLAVE,
            MountPropagation::Bidirectional => MsFlags::MS_SHARED,
        };
        let everywhere = if privileged { 0 } else { ATTR_NODEV };
        mount::set_attributes(tree.as_fd(), true, everywhere, 0, propagation.bits())
            .doing("adjust the volume")?;
        let own = attributes(self.spec);
        mount::set_attributes(tree.as_fd(), self.spec.recursive_readonly, own, 0, 0)
            .doing("adjust the volume")
    }
}

/// A volume's source; a folder is made when nothing is there.
fn copy_source(source: &Path) -> Result<OwnedFd> {
    if !source.exists() {
        std::fs::create_dir_all(source).doing(format_args!("make {}", source.display()))?;
    }
    // Links of the node are resolved by the node's rules; a link that somebody puts there meanwhile is not,
    // and what was found must still be what the source says (which may name a descriptor of the kubelet).
    let real = std::fs::canonicalize(source).doing(source.display())?;
    let found = target::open_unlinked(&real).doing(source.display())?;
    let (wanted, seen) = (stat(source).doing(source.display())?, fstat(&found).doing(source.display())?);
    if (wanted.st_dev, wanted.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(format!("{} was changed while it was mounted", source.display()));
    }
    mount::copy_tree_at(found.as_fd(), true).doing(format_args!("take {}", source.display()))
}

fn attributes(spec: &MountSpec) -> u64 {
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    flag(spec.readonly, ATTR_READONLY)
        | flag(spec.nosuid, ATTR_NOSUID)
        | flag(spec.nodev, ATTR_NODEV)
        | flag(spec.noexec, ATTR_NOEXEC)
}

fn new_file_system(spec: &MountSpec) -> Result<OwnedFd> {
    let own = attributes(spec);
    let made = match &spec.kind {
        MountKind::Tmpfs { options } => {
            let options: Vec<_> =
                options.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            let strict = if spec.target == "/dev" { ATTR_STRICTATIME } else { 0 };
            mount::new_mount("tmpfs", &options, own | strict)
        }
        MountKind::Proc => mount::new_mount("proc", &[], own),
        MountKind::Sysfs => mount::new_mount("sysfs", &[], own),
        MountKind::Mqueue => mount::new_mount("mqueue", &[], own),
        MountKind::Devpts => {
            let options = [
                ("newinstance", None),
                ("ptmxmode", Some("0666")),
                ("mode", Some("0620")),
                ("gid", Some("5")),
            ];
            mount::new_mount("devpts", &options, own)
        }
        MountKind::Bind { .. } | MountKind::Layers { .. } | MountKind::Cgroup => {
            return Err("not a file system of its own".into());
        }
    };
    made.doing("make the file system")
}

/// The container's root: its layers under its own writable one.
fn overlay(rootfs: &RootfsSpec, privileged: bool) -> Result<()> {
    let flags = if privileged { MsFlags::empty() } else { MsFlags::MS_NODEV };
    if rootfs.layers.is_empty() {
        return mount(Some(&rootfs.upper), &rootfs.target, NONE, MsFlags::MS_BIND, NONE)
            .doing("mount the root");
    }
    let (upper, work) = (rootfs.upper.display(), rootfs.work.display());
    let options = format!("{},upperdir={upper},workdir={work}", lower(&rootfs.layers));
    // Short names below the current folder keep many layers within the one page that the kernel reads.
    chdir(&rootfs.layers_folder).doing("enter the snapshots")?;
    mount(Some("overlay"), &rootfs.target, Some("overlay"), flags, Some(options.as_str()))
        .doing("mount the root file system")
}

fn lower(layers: &[String]) -> String {
    let topmost_first: Vec<&str> = layers.iter().rev().map(String::as_str).collect();
    format!("lowerdir={}", topmost_first.join(":"))
}

/// An image as a volume.
fn image_tree(folder: &Path, layers: &[String], sub_path: &str) -> Result<OwnedFd> {
    let tree = match layers {
        [] => mount::new_mount("tmpfs", &[("mode", Some("755"))], ATTR_READONLY)
            .doing("make an empty volume")?,
        [only] => mount::copy_tree(&folder.join(only), false).doing("take the image")?,
        many => {
            // Short names below the current folder, as for a root.
            chdir(folder).doing("enter the snapshots")?;
            let joined = many.iter().rev().map(String::as_str).collect::<Vec<_>>().join(":");
            // One text has to be shorter than this; layers one by one are known since Linux 6.8.
            let options: Vec<_> = match joined.len() < 256 {
                true => vec![("lowerdir", Some(joined.as_str()))],
                false => many.iter().rev().map(|name| ("lowerdir+", Some(name.as_str()))).collect(),
            };
            mount::new_mount("overlay", &options, ATTR_READONLY).doing("mount the image")?
        }
    };
    mount::set_attributes(tree.as_fd(), false, ATTR_READONLY, 0, 0).doing("adjust the image")?;
    if sub_path.is_empty() {
        return Ok(tree);
    }
    let part = target::open(&tree, relative(sub_path)).doing(format_args!("open {sub_path} of the image"))?;
    mount::copy_tree_at(part.as_fd(), false).doing("take a part of the image")
}

/// The terminal of a container's first process is also its console.
pub fn bind_console(terminal: &OwnedFd) -> Result<()> {
    let tree = mount::copy_tree_at(terminal.as_fd(), false).doing("take the terminal")?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open("/", flags, Mode::empty()).doing("open the root")?;
    let place = target::make(&root, Path::new("dev/console"), false).doing("make /dev/console")?;
    mount::attach(tree.as_fd(), place.as_fd()).doing("mount /dev/console")
}

/// What does not exist needs no protection.
fn bind_over_itself(path: &Path) -> Result<()> {
    let Ok(place) = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else { return Ok(()) };
    let tree = mount::copy_tree_at(place.as_fd(), true).doing("take it")?;
    mount::set_attributes(tree.as_fd(), true, ATTR_READONLY, 0, 0).doing("adjust it")?;
    mount::attach(tree.as_fd(), place.as_fd()).doing("mount it")
}

fn mask(path: &Path) -> Result<()> {
    let Ok(place) = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else { return Ok(()) };
    let is_folder = fstat(&place).doing("look at it")?.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits();
    let cover = if is_folder {
        mount::new_mount("tmpfs", &[("size", Some("0k"))], ATTR_READONLY).doing("make an empty folder")?
    } else {
        mount::copy_tree(Path::new("/dev/null"), false).doing("take /dev/null")?
    };
    mount::attach(cover.as_fd(), place.as_fd()).doing("cover it")
}

fn relative(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}
