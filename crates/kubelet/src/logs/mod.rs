//! Reading container logs in the CRI's format, for `kubectl logs`: from any start, once or as they grow.
//!
//! Following is woken by the file system (inotify) and by the container's end, never by a timer.

pub(crate) mod line;
mod query;
pub mod rotate;
mod tail;

pub use line::Line;
pub use query::{LogQuery, QueryError, Since, StreamKind};

use crate::file_watch::FileWatch;
use bytes::{Bytes, BytesMut};
use krate_base::Timestamp;
use nix::sys::inotify::AddWatchFlags;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pieces of output that wait for the client.
pub const QUEUE: usize = 16;
/// Bytes read from the file at a time.
const BLOCK: usize = 32 << 10;
/// Longest line kept in memory while its end is awaited, in bytes; longer ones are cut there.
const MAX_LINE: usize = 256 << 10;

/// Sends what `query` asks for to `out`, until the log ends, the client goes or, when following, until
/// `ended` is cancelled (the container has ended) and everything written before was sent.
pub async fn read(
    path: PathBuf,
    query: LogQuery,
    now: Timestamp,
    ended: CancellationToken,
    out: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut reader =
        Reader { since: query.cutoff(now), left: query.limit_bytes, query, buffer: BytesMut::new(), out };
    let mut file = File::open(&path).await?;
    if let Some(lines) = reader.query.tail_lines {
        let start = tail::start_of_last(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    if !reader.query.follow {
        reader.drain(&mut file).await?;
        return reader.finish().await;
    }
    // The watch is made before the first read, so that nothing falls between.
    let mut watch = watch_log(&path)?;
    loop {
        let over = ended.is_cancelled();
        if !reader.drain(&mut file).await? {
            return Ok(());
        }
        // Rotated away: what follows is in the new file of the same name.
        if replaced(&file, &path).await {
            file = File::open(&path).await?;
            watch = watch_log(&path)?;
            continue;
        }
        if over {
            return reader.finish().await;
        }
        tokio::select! {
            () = ended.cancelled() => {}
            changed = watch.changed() => { changed?; }
            () = reader.out.closed() => return Ok(()),
        }
    }
}

fn watch_log(path: &Path) -> io::Result<FileWatch> {
    let mut watch = FileWatch::new()?;
    watch.add(path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ATTRIB)?;
    // The new file of a rotation appears in the folder.
    if let Some(folder) = path.parent() {
        watch.add(folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    }
    Ok(watch)
}

async fn replaced(file: &File, path: &Path) -> bool {
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

struct Reader {
    query: LogQuery,
    since: Option<Timestamp>,
    /// Bytes that may still be sent.
    left: Option<u64>,
    /// What was read of a line whose end has not been written yet.
    buffer: BytesMut,
    out: mpsc::Sender<Bytes>,
}

impl Reader {
    /// Reads to the end of what is there; false when nothing more is wanted.
    async fn drain(&mut self, file: &mut File) -> io::Result<bool> {
        loop {
            self.buffer.reserve(BLOCK);
            let read = file.read_buf(&mut self.buffer).await?;
            if !self.send_lines().await {
                return Ok(false);
            }
            if read == 0 {
                return Ok(true);
            }
        }
    }

    async fn send_lines(&mut self) -> bool {
        let mut piece = BytesMut::new();
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let raw = self.buffer.split_to(end + 1);
            self.render(&raw[..end], &mut piece);
        }
        if self.buffer.len() > MAX_LINE {
            let raw = self.buffer.split();
            self.render(&raw, &mut piece);
        }
        self.send(piece.freeze()).await
    }

    /// A last line without an end, of a container that was killed while it wrote.
    async fn finish(&mut self) -> io::Result<()> {
        let mut piece = BytesMut::new();
        let raw = self.buffer.split();
        if !raw.is_empty() {
            self.render(&raw, &mut piece);
        }
        self.send(piece.freeze()).await;
        Ok(())
    }

    fn render(&self, raw: &[u8], piece: &mut BytesMut) {
        let Some(line) = Line::parse(raw) else {
            tracing::debug!("a line of a container log is not in the CRI's format");
            return;
        };
        let unwanted_stream = self.query.stream.is_some_and(|s| s != line.stream);
        if unwanted_stream || self.since.is_some_and(|since| line.time < since) {
            return;
        }
        if self.query.timestamps {
            piece.extend_from_slice(line.timestamp);
            piece.extend_from_slice(b" ");
        }
        piece.extend_from_slice(line.content);
        if !line.partial {
            piece.extend_from_slice(b"\n");
        }
    }

    async fn send(&mut self, mut piece: Bytes) -> bool {
        if let Some(left) = &mut self.left {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
        }
        if !piece.is_empty() && self.out.send(piece).await.is_err() {
            return false;
        }
        self.left != Some(0)
    }
}

#[cfg(test)]
mod tests;
