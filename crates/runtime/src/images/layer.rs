//! One layer: an archive becomes a folder that overlayfs can use as a lower layer.
//!
//! Promises: owners, modes (set-id bits too), times, hard links, device nodes and extended attributes (file
//! capabilities) are those of the archive; whiteouts become overlayfs' own; nothing is written outside the
//! folder, whatever names and links the archive holds. Folders that an archive does not mention but needs
//! take the metadata that they have in the layers below.

use super::blobs::Digest;
use crate::kernel::xattr;
use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &[u8] = b"trusted.overlay.opaque";
const PAX_XATTR: &str = "SCHILY.xattr.";
/// Buffer between a compressed file and its decoder.
const READ_BUFFER: usize = 256 << 10;

/// Reads a layer's archive whatever its compression, found out by its first bytes.
pub fn decompress(file: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(READ_BUFFER, file);
    let magic = io::BufRead::fill_buf(&mut file)?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::with_capacity(READ_BUFFER, MultiGzDecoder::new(file))))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::Decoder::with_buffer(file)?))
    } else {
        Ok(Box::new(file))
    }
}

/// Unpacks an archive into the empty folder `target` and returns the digest of its uncompressed bytes.
/// `below` are the unpacked layers underneath, topmost first.
pub fn unpack(archive: impl Read + 'static, target: &Path, below: &[PathBuf]) -> io::Result<Digest> {
    let mut archive = Archive::new(Hashing { inner: decompress(archive)?, hash: Sha256::new() });
    archive.set_ignore_zeros(true);
    let mut layer = Unpacker::new(target, below)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        layer.entry(&mut entry).map_err(|error| {
            io::Error::new(error.kind(), format!("unpack {}: {error}", String::from_utf8_lossy(&name)))
        })?;
    }
    layer.finish()?;
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    Ok(Digest::from_hash(rest.hash))
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// A name inside the layer: the folder that holds it and its last component; `None` for the root itself.
struct Place {
    folder: PathBuf,
    name: OsString,
}

struct Unpacker<'a> {
    target: PathBuf,
    root: OwnedFd,
    below: &'a [PathBuf],
    /// The folder of the last entry, kept open: archives list a folder's files together.
    last: Option<(PathBuf, OwnedFd)>,
    /// Folders' times, set at the end because files put into them change them.
    times: BTreeMap<PathBuf, i64>,
}

impl<'a> Unpacker<'a> {
    fn new(target: &Path, below: &'a [PathBuf]) -> io::Result<Self> {
        let root = open(target, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { target: target.to_owned(), root, below, last: None, times: BTreeMap::new() })
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let Some(place) = place(&entry.path_bytes())? else {
            return if kind.is_dir() { self.root_entry(entry) } else { Ok(()) };
        };
        if place.name.as_bytes() == OPAQUE {
            self.folder(&place.folder)?;
            return xattr::set(&self.path_of(&place.folder)?, OPAQUE_ATTRIBUTE, b"y");
        }
        if let Some(hidden) = place.name.as_bytes().strip_prefix(WHITEOUT) {
            let hidden = OsStr::from_bytes(hidden).to_owned();
            return self.whiteout(&place.folder, &hidden);
        }
        self.make_room(&place, kind)?;
        self.create(&place, kind, entry)?;
        if kind.is_hard_link() { Ok(()) } else { self.metadata(&place, kind, entry) }
    }

    fn root_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let (uid, gid) = owner(entry)?;
        fchownat(&self.root, ".", Some(uid), Some(gid), AtFlags::empty())?;
        fchmodat(&self.root, ".", mode(entry)?, FchmodatFlags::FollowSymlink)?;
        Ok(())
    }

    fn whiteout(&mut self, folder: &Path, hidden: &OsStr) -> io::Result<()> {
        let dir = self.folder(folder)?;
        match mknodat(dir, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
            // Both the file and its whiteout in one layer: the file is newer than what the whiteout hides.
            Err(Errno::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes what an earlier entry of the same archive put at this name, unless both are folders.
    fn make_room(&mut self, place: &Place, kind: EntryType) -> io::Result<()> {
        let dir = self.folder(&place.folder)?;
        let old = match fstatat(dir, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        let old_is_folder = old.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if old_is_folder && kind.is_dir() {
            return Ok(());
        }
        if old_is_folder {
            self.last = None;
            return std::fs::remove_dir_all(self.path_of(&place.folder)?.join(&place.name));
        }
        Ok(unlinkat(dir, place.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?)
    }

    fn create<R: Read>(
        &mut self,
        place: &Place,
        kind: EntryType,
        entry: &mut Entry<'_, R>,
    ) -> io::Result<()> {
        let name = place.name.as_os_str();
        if kind.is_hard_link() {
            return self.hard_link(place, &link_target(entry)?);
        }
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let dir = self.folder(&place.folder)?;
        match kind {
            EntryType::Directory => match mkdirat(dir, name, Mode::S_IRWXU) {
                Err(Errno::EEXIST) => {}
                other => other?,
            },
            EntryType::Symlink => symlinkat(OsStr::from_bytes(&link_target(entry)?), dir, name)?,
            EntryType::Fifo => mknodat(dir, name, SFlag::S_IFIFO, private, 0)?,
            EntryType::Char => mknodat(dir, name, SFlag::S_IFCHR, private, device(entry)?)?,
            EntryType::Block => mknodat(dir, name, SFlag::S_IFBLK, private, device(entry)?)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags =
                    OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(dir, name, flags, private)?);
                io::copy(entry, &mut file)?;
            }
            other => return Err(io::Error::other(format!("unsupported archive entry type {other:?}"))),
        }
        Ok(())
    }

    fn hard_link(&mut self, place: &Place, target: &[u8]) -> io::Result<()> {
        let Some(source) = self::place(target)? else { return Err(Errno::EPERM.into()) };
        let from = self.resolve(&source.folder)?;
        let dir = self.folder(&place.folder)?;
        Ok(linkat(from, source.name.as_os_str(), dir, place.name.as_os_str(), AtFlags::empty())?)
    }

    /// Owner first (it clears set-id bits and capabilities), then mode, attributes and time.
    fn metadata<R: Read>(
        &mut self,
        place: &Place,
        kind: EntryType,
        entry: &mut Entry<'_, R>,
    ) -> io::Result<()> {
        let (uid, gid) = owner(entry)?;
        let (mode, mtime) = (mode(entry)?, entry.header().mtime()?.cast_signed());
        let attributes = attributes(entry)?;
        let (name, folder) = (place.name.as_os_str(), place.folder.clone());
        let dir = self.folder(&folder)?;
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !kind.is_symlink() {
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        let held = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        for (attribute, value) in attributes {
            match xattr::set(&held, attribute.as_bytes(), &value) {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                other => other?,
            }
        }
        if kind.is_dir() {
            self.times.insert(folder.join(name), mtime);
            return Ok(());
        }
        let time = TimeSpec::new(mtime, 0);
        Ok(utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    fn finish(&mut self) -> io::Result<()> {
        for (folder, mtime) in std::mem::take(&mut self.times) {
            // A later entry may have replaced the folder; then its time is not ours to set.
            let Ok(dir) = self.resolve(&folder) else { continue };
            let time = TimeSpec::new(mtime, 0);
            utimensat(&dir, ".", &time, &time, UtimensatFlags::FollowSymlink)?;
        }
        Ok(())
    }

    /// An existing folder of the layer; links are followed as if the layer were the root.
    fn resolve(&self, folder: &Path) -> nix::Result<OwnedFd> {
        let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, name, how)
    }

    /// A folder of the layer, made with its parents when it is not there.
    fn folder(&mut self, folder: &Path) -> io::Result<&OwnedFd> {
        if self.last.as_ref().is_none_or(|(path, _)| path != folder) {
            let fd = match self.resolve(folder) {
                Err(Errno::ENOENT) => {
                    self.make_parents(folder)?;
                    self.resolve(folder)?
                }
                other => other?,
            };
            self.last = Some((folder.to_owned(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd),
            None => Err(io::Error::other("no folder")),
        }
    }

    fn make_parents(&self, folder: &Path) -> io::Result<()> {
        let mut sofar = PathBuf::new();
        for component in folder.components() {
            let parent = self.resolve(&sofar)?;
            sofar.push(component);
            match mkdirat(&parent, component.as_os_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => self.copy_metadata(&parent, component.as_os_str(), &sofar)?,
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn copy_metadata(&self, parent: &OwnedFd, name: &OsStr, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let known = self.below.iter().find_map(|layer| layer.join(folder).symlink_metadata().ok());
        let Some(known) = known.filter(std::fs::Metadata::is_dir) else {
            // mkdir obeyed the umask of this process
            return Ok(fchmodat(
                parent,
                name,
                Mode::from_bits_truncate(0o755),
                FchmodatFlags::FollowSymlink,
            )?);
        };
        let (uid, gid) = (Uid::from_raw(known.uid()), Gid::from_raw(known.gid()));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_bits_truncate(known.mode() & 0o7777);
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
        Ok(())
    }

    /// A path through which the (already existing) folder can be reached by calls that take no descriptor.
    fn path_of(&mut self, folder: &Path) -> io::Result<PathBuf> {
        let real = std::fs::read_link(format!("/proc/self/fd/{}", self.folder(folder)?.as_raw_fd()))?;
        if real.starts_with(std::fs::canonicalize(&self.target)?) {
            Ok(real)
        } else {
            Err(Errno::EXDEV.into())
        }
    }
}

/// Splits an archive's name; absolute names and `./` mean the layer's root, `..` is refused.
fn place(name: &[u8]) -> io::Result<Option<Place>> {
    let mut parts = Vec::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the name leaves the layer"));
            }
        }
    }
    Ok(parts.pop().map(|name| Place { folder: parts.iter().collect(), name }))
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<Vec<u8>> {
    let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
    target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))
}

fn owner<R: Read>(entry: &Entry<'_, R>) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| {
        u32::try_from(id).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "owner out of range"))
    };
    Ok((Uid::from_raw(id(entry.header().uid()?)?), Gid::from_raw(id(entry.header().gid()?)?)))
}

fn mode<R: Read>(entry: &Entry<'_, R>) -> io::Result<Mode> {
    Ok(Mode::from_bits_truncate(entry.header().mode()? & 0o7777))
}

fn device<R: Read>(entry: &Entry<'_, R>) -> io::Result<libc::dev_t> {
    let part = |part: Option<u32>| u64::from(part.unwrap_or(0));
    Ok(makedev(part(entry.header().device_major()?), part(entry.header().device_minor()?)))
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(PAX_XATTR))
            // overlayfs' own attributes come from its whiteouts, never from an archive
            && !name.starts_with("trusted.overlay.")
        {
            found.push((OsString::from_vec(name.as_bytes().to_vec()), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
