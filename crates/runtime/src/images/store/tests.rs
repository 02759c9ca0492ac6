//! Stores with built and imported images.

use super::*;
use crate::images::{BuildSpec, CopySpec};
use std::io::Write;

fn store() -> (tempfile::TempDir, ImageStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path()).unwrap();
    (folder, store)
}

fn bytes(content: &str, target: &str) -> CopySpec {
    CopySpec::Bytes { content: content.as_bytes().into(), target: target.into(), mode: 0o644 }
}

fn spec(tag: &str, from: Option<&str>, copies: Vec<CopySpec>) -> BuildSpec {
    BuildSpec { tag: tag.into(), from: from.map(str::to_owned), copies, ..BuildSpec::default() }
}

#[test]
fn a_build_upon_a_base_keeps_and_replaces() {
    let (_folder, store) = store();
    let base = BuildSpec {
        entrypoint: vec!["/app".into()],
        cmd: vec!["old".into()],
        env: vec!["A=1".into(), "B=2".into()],
        user: Some("app".into()),
        ..spec("base:1", None, vec![bytes("app:x:10:20::/:\n", "/etc/passwd"), bytes("one", "/data/a")])
    };
    store.build(&base).unwrap();
    let top = BuildSpec {
        env: vec!["A=9".into()],
        cmd: vec!["new".into()],
        ..spec("top:1", Some("base:1"), vec![bytes("two", "/data/b")])
    };
    let image = store.build(&top).unwrap();
    assert_eq!(image.tags, ["docker.io/library/top:1"]);
    assert_eq!(image.config.config.env, ["B=2", "A=9"]);
    assert_eq!((&image.config.config.entrypoint[0][..], &image.config.config.cmd[0][..]), ("/app", "new"));
    let rootfs = store.lease("c1", &image).unwrap();
    assert_eq!(rootfs.layers.len(), 2);
    assert_eq!(rootfs.read("/data/a").unwrap(), b"one");
    assert_eq!(rootfs.read("data/b").unwrap(), b"two");
    assert!(rootfs.read("/etc/passwd").unwrap().starts_with(b"app:"));
    assert_eq!(rootfs.read("/nothing"), None);
}

#[test]
fn removal_collects_what_nothing_needs() {
    let (_folder, store) = store();
    store.build(&spec("a:1", None, vec![bytes("a", "/a")])).unwrap();
    store.build(&spec("b:1", Some("a:1"), vec![bytes("b", "/b")])).unwrap();
    let b = store.find("b:1").unwrap().unwrap();
    store.lease("container", &b).unwrap();
    store.remove("a:1").unwrap();
    assert!(store.find("a:1").unwrap().is_none());
    assert_eq!(store.snapshots.all().unwrap().len(), 2, "b stands on a's layer");
    store.remove(b.id.as_str()).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert_eq!(store.snapshots.all().unwrap().len(), 2, "a container still uses them");
    assert!(store.blobs.all().unwrap().is_empty());
    store.release("container").unwrap();
    store.collect().unwrap();
    assert!(store.snapshots.all().unwrap().is_empty());
    store.remove("a:1").unwrap();
}

#[test]
fn images_are_found_by_name_id_and_short_id() {
    let (_folder, store) = store();
    let image = store.build(&spec("app", None, vec![bytes("a", "/a")])).unwrap();
    for name in [
        "app",
        "app:latest",
        "docker.io/library/app:latest",
        image.id.as_str(),
        image.id.hex(),
        &image.id.hex()[..12],
    ] {
        assert_eq!(store.find(name).unwrap().map(|found| found.id), Some(image.id.clone()), "{name}");
    }
    assert!(store.find("other").unwrap().is_none());
}

/// An archive of name and content pairs.
fn archive(files: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, &content[..]).unwrap();
    }
    file.write_all(&tar.into_inner().unwrap()).unwrap();
    file
}

fn layer(name: &str, content: &str) -> Vec<u8> {
    let file = archive(&[(name, content.as_bytes().to_vec())]);
    std::fs::read(file.path()).unwrap()
}

#[test]
fn docker_save_archives_are_imported() {
    let (_folder, store) = store();
    let layer = layer("hello", "world");
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Cmd":["/hello"],"User":"1000:1000"}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        crate::images::config::architecture(),
        Digest::of(&layer)
    );
    let list = r#"[{"Config":"c.json","RepoTags":["demo:v1","demo:v2"],"Layers":["abc/layer.tar"]}]"#;
    let file =
        archive(&[("abc/layer.tar", layer), ("c.json", config.into_bytes()), ("manifest.json", list.into())]);
    let images = store.import(file.path(), None).unwrap();
    assert_eq!(images[0].tags, ["docker.io/library/demo:v1", "docker.io/library/demo:v2"]);
    assert_eq!(images[0].to_cri().uid, Some(1000));
    assert_eq!(store.lease("x", &images[0]).unwrap().read("hello").unwrap(), b"world");
}

#[test]
fn oci_archives_are_imported_for_this_platform() {
    let (_folder, built) = store();
    let image = built.build(&spec("x:1", None, vec![bytes("hi", "/hi")])).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for digest in built.blobs.all().unwrap() {
        files.push((format!("blobs/sha256/{}", digest.hex()), built.blobs.read(&digest).unwrap()));
    }
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":1,"annotations":{{"org.opencontainers.image.ref.name":"v7"}}}}]}}"#,
        image.manifest
    );
    files.push(("index.json".into(), index.into_bytes()));
    let borrowed: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
    let file = archive(&borrowed);
    let (_other, store) = store();
    let imported = store.import(file.path(), Some("given:1")).unwrap();
    assert_eq!((imported[0].id.clone(), &imported[0].tags[0][..]), (image.id, "docker.io/library/given:1"));
    let nameless = store.import(file.path(), None).unwrap();
    assert!(nameless[0].tags.iter().any(|tag| tag.ends_with(":v7")), "{:?}", nameless[0].tags);
}

#[test]
fn what_is_no_archive_is_the_users_mistake() {
    let (_folder, store) = store();
    let file = archive(&[("README", b"x".to_vec())]);
    let error = store.import(file.path(), None).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "some\ntext\n".repeat(200)).unwrap();
    let error = store.import(text.path(), None).unwrap_err().to_string();
    assert_eq!(error, format!("failed to read {}: it is not a tar archive", text.path().display()));
}
