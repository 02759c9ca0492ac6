//! What stands between a value in memory and its form on the disk.
//!
//! The store hands every value that it writes to a [`Seal`] and takes back what to keep in its place. It
//! knows nothing of keys or ciphers; in memory, and to readers and watchers, values are always plain.

use crate::Key;
use std::io;

/// Changes values on their way to the disk and back. Blocking: it is called where the disk is waited for.
pub trait Seal: Send + Sync + std::fmt::Debug + 'static {
    /// What to keep in place of `plain`, or `None` if this key's values are kept as they are. An error
    /// refuses the transaction.
    fn seal(&self, key: &Key, plain: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The reverse. What was sealed for another key is an error.
    fn open(&self, key: &Key, sealed: &[u8]) -> io::Result<Vec<u8>>;

    /// Whether a value that is kept so (`None`: as it is) would be kept otherwise if it were written now.
    fn is_stale(&self, key: &Key, sealed: Option<&[u8]>) -> bool;
}
