//! Building a netlink message, and reading the attributes of one.

use super::HEADER;

/// The attribute holds attributes.
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// A message under construction: header, a fixed part, attributes.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of `kind` with `flags`; its fixed part follows with [`raw`](Self::raw).
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    #[must_use]
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// A number in the machine's byte order, as the route family has them.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order, as netfilter has them.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    #[must_use]
    pub fn be64(self, kind: u16, value: u64) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// A string, ended by zero.
    #[must_use]
    pub fn text(mut self, kind: u16, value: &str) -> Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
        self
    }

    /// An attribute that holds what `fill` puts into it.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind | NESTED);
        self = fill(self);
        self.close(start);
        self
    }

    /// Every item of a list in one nested attribute.
    #[must_use]
    pub fn list<T>(
        self,
        kind: u16,
        items: impl IntoIterator<Item = T>,
        each: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.nest(kind, |m| items.into_iter().fold(m, each))
    }

    /// How long the message is so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= HEADER
    }

    /// The bytes to send, with their length and sequence number filled in.
    #[must_use]
    pub fn finish(mut self, seq: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.bytes
    }

    /// Adds flags to those given at the start.
    #[must_use]
    pub fn flags(mut self, more: u16) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        // An attribute's length has 16 bits: whoever fills one with a list cuts the list into messages.
        assert!(len <= usize::from(u16::MAX), "netlink attribute of {len} bytes");
        self.bytes[start..start + 2].copy_from_slice(&(len as u16).to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The attributes in `bytes`: kind without flags, and value. Stops at the first that is cut short.
pub fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & KIND_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
#[must_use]
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// A number in the machine's byte order.
#[must_use]
pub fn get_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_can_be_read() {
        let message = Message::new(16, 5)
            .raw(&[9; 4])
            .text(3, "eth0")
            .nest(18, |m| m.text(1, "veth").u32(2, 7))
            .finish(42);
        assert_eq!(u32::from_ne_bytes(message[0..4].try_into().unwrap()) as usize, message.len());
        let body = &message[HEADER + 4..];
        assert_eq!(find(body, 3), Some(&b"eth0\0"[..]));
        let inner = find(body, 18).unwrap();
        assert_eq!(find(inner, 1), Some(&b"veth\0"[..]));
        assert_eq!(find(inner, 2).and_then(get_u32), Some(7));
    }
}
