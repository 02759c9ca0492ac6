//! `krate image`: the images of a cluster, which all its nodes share, or of one node.

use crate::cli::{ImageArgs, ImageBuild, ImageCommand};
use crate::cluster::Cluster;
use crate::ui::{Explain, Failure, Outcome, Steps, say};
use crate::wiring::images;
use krate_runtime::images::{BuildSpec, CopySpec, PullOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where nodes that are no part of a cluster of `up` keep their images unless told otherwise.
const NODES: [&str; 2] = ["/var/lib/krate/server/node/images", "/var/lib/krate/agent/images"];

pub async fn run(args: ImageArgs) -> Outcome<()> {
    let store = Arc::new(images::open(&folder(&args)?)?);
    let steps = Steps::new();
    match args.command {
        ImageCommand::Import { file } => {
            let step = steps.begin(&format!("Importing {}", file.display()));
            let next = "Give an OCI archive or a file written by `docker save`.";
            let work = move || store.import(&file, None).explain("the archive cannot be imported", next);
            let images = images::off_runtime(work).await?;
            step.done();
            for name in images.iter().flat_map(|image| &image.tags) {
                say!("{name}");
            }
        }
        ImageCommand::List => {
            say!("{:<48} {:<14} {:>10}", "IMAGE", "ID", "SIZE");
            for image in store.list().explain("the images cannot be read", "")? {
                let id: String = image.id.hex().chars().take(12).collect();
                for tag in &image.tags {
                    say!("{tag:<48} {id:<14} {:>10}", size(image.size));
                }
            }
        }
        ImageCommand::Build(build) => {
            let step = steps.begin(&format!("Building {}", build.tag));
            let spec = spec(build)?;
            let next = "Check the paths of --copy and the name of --from.";
            let built =
                images::off_runtime(move || store.build(&spec).explain("the image cannot be built", next))
                    .await?;
            step.done();
            say!("{} {}", built.tags.first().map_or("", String::as_str), built.id.as_str());
        }
        ImageCommand::Remove { image } => {
            let next = "See `krate image list`.";
            let name = image.clone();
            let work = move || {
                let failed = format!("{name} cannot be removed");
                let found = store.find(&name).explain(&failed, next)?;
                found.ok_or_else(|| Failure::new(format!("there is no image {name:?}"), next))?;
                store.remove(&name).explain(&failed, next)
            };
            images::off_runtime(work).await?;
            say!("{image} removed");
        }
        ImageCommand::Pull { image, creds } => {
            let step = steps.begin(&format!("Pulling {image}"));
            let auth = creds.map(|c| credentials(&c)).transpose()?;
            let next = "Check the name, and that this machine reaches the registry.";
            let pulled =
                krate_runtime::images::pull(&store, &image, auth.as_ref(), &PullOptions::default()).await;
            let id = pulled.explain(&format!("{image} cannot be pulled"), next)?;
            step.done();
            say!("{image} {}", id.as_str());
        }
    }
    Ok(())
}

/// Where the images are. A folder that is given must be a node's: a new one would be an image store that no node
/// looks at.
fn folder(args: &ImageArgs) -> Outcome<PathBuf> {
    match &args.image_dir {
        Some(dir) if dir.is_dir() => Ok(dir.clone()),
        Some(dir) => Err(Failure::new(
            format!("there is no folder {}", dir.display()),
            "Give DATA_DIR/node/images of a `krate server`, DATA_DIR/images of a `krate agent`, or its --image-dir.",
        )),
        None => {
            let cluster = Cluster::of(&args.cluster)?;
            cluster.load().map_err(|failure| match NODES.iter().find(|dir| Path::new(dir).is_dir()) {
                Some(dir) => {
                    Failure::new(failure.what, format!("For the node of this host give --image-dir {dir}."))
                }
                None => failure,
            })?;
            Ok(cluster.images_dir())
        }
    }
}

fn credentials(text: &str) -> Outcome<krate_runtime::cri::AuthConfig> {
    let (username, password) =
        text.split_once(':').ok_or_else(|| Failure::new("--creds is not of the form USER:PASSWORD", ""))?;
    Ok(krate_runtime::cri::AuthConfig {
        username: username.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    })
}

fn spec(build: ImageBuild) -> Outcome<BuildSpec> {
    let copies: Outcome<Vec<CopySpec>> = build
        .copy
        .iter()
        .map(|text| {
            let (source, target) = text.rsplit_once(':').ok_or_else(|| {
                Failure::new(
                    format!("--copy {text:?} is not of the form SRC:DST"),
                    "Write it as ./bin/app:/app.",
                )
            })?;
            Ok(CopySpec::Path { source: PathBuf::from(source), target: target.to_owned() })
        })
        .collect();
    Ok(BuildSpec {
        tag: build.tag,
        from: build.from,
        copies: copies?,
        entrypoint: build.entrypoint,
        cmd: build.cmd,
        env: build.env,
        workdir: build.workdir,
        user: build.user,
        ..BuildSpec::default()
    })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
