//! Kernel settings of the calling thread's network namespace.

use super::Error;
use std::path::Path;

/// Sets `name` (a path below `/proc/sys`) unless it has the value already, so that a read-only `/proc/sys`
/// with the right values is good enough.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| Error::File { path, source })
}
