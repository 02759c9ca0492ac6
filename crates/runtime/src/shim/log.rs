//! A container's log in the CRI's format: `<time> <stream> <F or P> <text>`.
//!
//! A line longer than [`MAX_LINE`] is written in parts, all but the last tagged `P`. So is what stands at the end
//! of a stream without a line feed: nobody who reads it must see a line feed that was not written. Errors of the disk lose lines, never the container.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest piece of text in one line of the log.
pub const MAX_LINE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Cuts one stream into lines.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Appends the log lines that `bytes` complete to `out`.
    pub fn push(&mut self, bytes: &[u8], stream: Stream, time: &str, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.add(&rest[..end], stream, time, out);
            line(&self.pending, stream, b'F', time, out);
            self.pending.clear();
            rest = &rest[end + 1..];
        }
        self.add(rest, stream, time, out);
    }

    /// The end of the stream.
    pub fn finish(&mut self, stream: Stream, time: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            line(&self.pending, stream, b'P', time, out);
            self.pending.clear();
        }
    }

    fn add(&mut self, mut bytes: &[u8], stream: Stream, time: &str, out: &mut Vec<u8>) {
        while self.pending.len() + bytes.len() > MAX_LINE {
            let (now, later) = bytes.split_at(MAX_LINE - self.pending.len());
            self.pending.extend_from_slice(now);
            line(&self.pending, stream, b'P', time, out);
            self.pending.clear();
            bytes = later;
        }
        self.pending.extend_from_slice(bytes);
    }
}

fn line(text: &[u8], stream: Stream, tag: u8, time: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(if stream == Stream::Stdout { b" stdout " } else { b" stderr " });
    out.push(tag);
    out.push(b' ');
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The file behind it, which the kubelet renames to rotate.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
}

impl LogFile {
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        self.file = Some(OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?);
        Ok(())
    }

    pub fn write(&mut self, lines: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(lines)
        {
            tracing::warn!(log = %self.path.display(), %error, "log lines lost");
        }
    }
}

/// `2026-01-01T00:00:00.000000000Z` of nanoseconds since the epoch.
#[must_use]
pub fn timestamp(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Year, month and day of a number of days since the epoch, by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<(char, usize)> {
        let (mut cutter, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            cutter.push(piece, Stream::Stdout, "T", &mut out);
        }
        cutter.finish(Stream::Stdout, "T", &mut out);
        let text = String::from_utf8(out).unwrap();
        let text = text.lines().map(|line| line.strip_prefix("T stdout ").unwrap().to_owned());
        text.map(|line| (char::from(line.as_bytes()[0]), line.len() - 2)).collect()
    }

    #[test]
    fn lines_are_cut_and_tagged() {
        assert_eq!(lines(&[b"a\nbc", b"d\n", b"tail"]), [('F', 1), ('F', 3), ('P', 4)]);
        assert_eq!(lines(&[b"\n"]), [('F', 0)]);
        let exact = [vec![b'x'; MAX_LINE], vec![b'\n']].concat();
        assert_eq!(lines(&[&exact]), [('F', MAX_LINE)]);
        let long = [vec![b'x'; 2 * MAX_LINE + 5], vec![b'\n']].concat();
        assert_eq!(lines(&[&long]), [('P', MAX_LINE), ('P', MAX_LINE), ('F', 5)]);
    }

    proptest::proptest! {
        #[test]
        fn times_agree_with_the_calendar(nanos in -2_000_000_000_000_000_000i64..4_000_000_000_000_000_000) {
            let known = krate_base::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            let parsed: krate_base::Timestamp = timestamp(nanos).parse().unwrap();
            proptest::prop_assert_eq!(parsed, known);
            proptest::prop_assert_eq!(timestamp(nanos).len(), 30);
        }
    }
}
