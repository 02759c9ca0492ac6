//! Header blocks: names and values behind lengths, compressed with one zlib stream for each direction, which
//! begins with the dictionary of the SPDY draft (section 2.6.10.1).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::OnceLock;

/// Longest header block, decompressed, in bytes.
const MAX_BLOCK: usize = 64 << 10;
/// Most headers in a block.
const MAX_HEADERS: usize = 256;

/// The words of the dictionary, each of which it spells behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
content-length content-location content-md5 content-range content-type date etag expect expires from host \
if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
keep-alive origin";

/// The rest of the dictionary, spelled as it is.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut bytes = Vec::with_capacity(1423);
        for word in WORDS.split(' ') {
            let word = word.replace('_', " ");
            bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes.extend_from_slice(TEXT.as_bytes());
        bytes
    })
}

#[derive(Debug, thiserror::Error)]
#[error("malformed header block")]
pub struct Malformed;

/// The state of the client's compression.
pub struct Decompressor(Decompress);

impl Decompressor {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of a block, with names in lower case.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        let bytes = self.inflate(block)?;
        let mut rest = bytes.as_slice();
        let count = number(&mut rest)?;
        if count > MAX_HEADERS {
            return Err(Malformed);
        }
        (0..count).map(|_| Ok((text(&mut rest)?.to_ascii_lowercase(), text(&mut rest)?))).collect()
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(4 << 10);
        loop {
            if out.len() >= MAX_BLOCK {
                return Err(Malformed);
            }
            out.reserve(4 << 10);
            let before = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            block = &block[(self.0.total_in() - before.0) as usize..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary()).map_err(|_| Malformed)?;
                }
                Err(_) => return Err(Malformed),
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if before == (self.0.total_in(), self.0.total_out()) => return Ok(out),
                Ok(_) => {}
            }
        }
    }
}

fn number(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(rest: &mut &[u8]) -> Result<String, Malformed> {
    let length = number(rest)?;
    let bytes = rest.get(..length).ok_or(Malformed)?;
    *rest = &rest[length..];
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

/// The state of our compression.
pub struct Compressor(Compress);

impl Compressor {
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        // Cannot fail on a stream on which nothing was written yet.
        let _ = compress.set_dictionary(dictionary());
        Self(compress)
    }

    pub fn encode(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(part.len() as u32).to_be_bytes());
            plain.extend_from_slice(part.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            out.reserve(64);
            let consumed = (self.0.total_in() - start) as usize;
            // Compressing to memory fails only on a broken state, and then the client ends the connection.
            let result = self.0.compress_vec(&plain[consumed..], &mut out, FlushCompress::Sync);
            let all = (self.0.total_in() - start) as usize == plain.len();
            if result.is_err() || all && out.len() < out.capacity() {
                return out;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_draft() {
        assert_eq!(dictionary().len(), 1423);
        // zlib names a preset dictionary by its checksum, behind the two bytes of its own header.
        let block = Compressor::new().encode(&[]);
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_share_one_state() {
        let (mut to, mut from) = (Compressor::new(), Decompressor::new());
        for headers in [vec![("streamtype", "error"), ("port", "80")], vec![], vec![("streamtype", "data")]] {
            let decoded = from.decode(&to.encode(&headers)).unwrap();
            let expected: Vec<(String, String)> =
                headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(decoded, expected);
        }
        let long = "x".repeat(10_000);
        assert_eq!(from.decode(&to.encode(&[("long", &long)])).unwrap()[0].1, long);
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Decompressor::new().decode(&[1, 2, 3, 4, 5]).is_err());
    }
}
