//! Extended attributes, of the entry itself (never of what a link points to).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub fn set(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let name = CString::new(name)?;
    // SAFETY: both strings are NUL-terminated and the value's pointer and length describe one live slice.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The value, or `None` when there is no such attribute (or no support for attributes).
pub fn get(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    const LONGEST: usize = 64 << 10;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let name = CString::new(name)?;
    let mut value = vec![0u8; LONGEST];
    // SAFETY: both strings are NUL-terminated and the buffer is writable for its whole length.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if length >= 0 {
        value.truncate(length.unsigned_abs());
        return Ok(Some(value));
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(None),
        error => Err(error),
    }
}
