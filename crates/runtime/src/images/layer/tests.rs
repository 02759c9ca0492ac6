//! Layers with everything that archives are known to hold, and some that want out.

use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use tar::{Builder, Header};

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(1000);
    header.set_gid(1001);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    header
}

fn file(tar: &mut Builder<Vec<u8>>, name: &str, mode: u32, content: &[u8]) {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).unwrap();
}

fn link(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
    tar.append_link(&mut header(kind, 0o777), name, target).unwrap();
}

fn unpacked(tar: Builder<Vec<u8>>, below: &[PathBuf]) -> (tempfile::TempDir, io::Result<Digest>) {
    let folder = tempfile::tempdir().unwrap();
    let result = unpack(io::Cursor::new(tar.into_inner().unwrap()), folder.path(), below);
    (folder, result)
}

#[test]
fn owners_modes_links_and_whiteouts() {
    let mut tar = Builder::new(Vec::new());
    tar.append_data(&mut header(EntryType::Directory, 0o1777), "tmp/", io::empty()).unwrap();
    file(&mut tar, "bin/su", 0o4755, b"su");
    link(&mut tar, EntryType::Link, "bin/sudo", "bin/su");
    link(&mut tar, EntryType::Symlink, "sbin", "bin");
    file(&mut tar, "sbin/init", 0o755, b"init");
    file(&mut tar, "etc/.wh.passwd", 0, b"");
    file(&mut tar, "var/.wh..wh..opq", 0, b"");
    let (folder, result) = unpacked(tar, &[]);
    result.unwrap();
    let at = |name: &str| folder.path().join(name);
    let su = at("bin/su").metadata().unwrap();
    assert_eq!((su.uid(), su.gid(), su.mode() & 0o7777, su.nlink()), (1000, 1001, 0o4755, 2));
    assert_eq!(su.mtime(), 1_000_000_000);
    assert_eq!(at("bin/sudo").metadata().unwrap().ino(), su.ino());
    assert_eq!(at("bin/init").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(at("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(at("tmp").metadata().unwrap().mtime(), 1_000_000_000);
    let whiteout = at("etc/passwd").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(xattr::get(&at("var"), OPAQUE_ATTRIBUTE).unwrap().as_deref(), Some(&b"y"[..]));
}

#[test]
fn file_capabilities_survive() {
    let mut tar = Builder::new(Vec::new());
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    file(&mut tar, "ping", 0o755, b"ping");
    let (folder, result) = unpacked(tar, &[]);
    result.unwrap();
    let kept = xattr::get(&folder.path().join("ping"), b"security.capability").unwrap();
    assert_eq!(kept.as_deref(), Some(&capability[..]));
}

#[test]
fn unmentioned_folders_look_as_below() {
    let below = tempfile::tempdir().unwrap();
    std::fs::create_dir(below.path().join("data")).unwrap();
    std::os::unix::fs::chown(below.path().join("data"), Some(7), Some(8)).unwrap();
    std::fs::set_permissions(below.path().join("data"), PermissionsExt::from_mode(0o700)).unwrap();
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "data/x", 0o644, b"x");
    let (folder, result) = unpacked(tar, &[below.path().to_owned()]);
    result.unwrap();
    let data = folder.path().join("data").metadata().unwrap();
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (7, 8, 0o700));
}

#[test]
fn nothing_is_written_outside() {
    let outside = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    link(&mut tar, EntryType::Symlink, "out", outside.path().to_str().unwrap());
    file(&mut tar, "out/x", 0o644, b"x");
    let (folder, _) = unpacked(tar, &[]);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    drop(folder);

    let mut raw = header(EntryType::Regular, 0o644);
    raw.as_old_mut().name[..7].copy_from_slice(b"../evil");
    raw.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&raw, io::empty()).unwrap();
    assert!(unpacked(tar, &[]).1.is_err());
}

#[test]
fn the_digest_is_of_the_uncompressed_bytes() {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "a", 0o644, b"a");
    let plain = tar.into_inner().unwrap();
    let gzip = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).unwrap();
        gzip.finish().unwrap()
    };
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for packed in [plain.clone(), gzip, zstd] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(unpack(io::Cursor::new(packed), folder.path(), &[]).unwrap(), Digest::of(&plain));
    }
}
