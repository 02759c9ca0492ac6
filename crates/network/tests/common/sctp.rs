//! SCTP as bytes, for kernels without its sockets: the chunk that opens an association, sent and seen as packets.

use super::Ns;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

const PROTOCOL: u8 = 132;
const IP_HEADER: usize = 20;

/// An endpoint that sees every packet of its namespace.
pub struct Listener {
    ns: Ns,
    socket: OwnedFd,
}

impl Ns {
    /// Looks at the packets that come, from now on.
    pub fn listen_sctp(&self) -> Listener {
        let socket = self.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket =
                socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll).unwrap();
            // The longest that a failure may take, not something that a test waits for.
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).unwrap();
            socket
        });
        Listener { ns: self.clone(), socket }
    }

    /// Sends an INIT chunk.
    pub fn send_sctp(&self, to: &str) {
        let to: SocketAddrV4 = to.parse().unwrap();
        self.run(move || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).unwrap();
            sendto(socket.as_raw_fd(), &packet(to), &SockaddrIn::from(to), MsgFlags::empty()).unwrap();
        });
    }
}

impl Listener {
    /// The destination of the next INIT chunk that comes in, if one comes in time.
    pub fn next(&self) -> Option<SocketAddrV4> {
        let fd = self.socket.as_raw_fd();
        self.ns.run(move || {
            let mut packet = [0; 2048];
            loop {
                match recv(fd, &mut packet, MsgFlags::empty()) {
                    Ok(n) if n > IP_HEADER + 12 && packet[9] == PROTOCOL && packet[IP_HEADER + 12] == 1 => {
                        let address: [u8; 4] = packet[16..20].try_into().unwrap();
                        let port = u16::from_be_bytes([packet[IP_HEADER + 2], packet[IP_HEADER + 3]]);
                        return Some(SocketAddrV4::new(Ipv4Addr::from(address), port));
                    }
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return None,
                }
            }
        })
    }
}

/// An IPv4 packet with an INIT chunk; the kernel fills in the source and the header's checksum.
fn packet(to: SocketAddrV4) -> Vec<u8> {
    let mut sctp = Vec::new();
    sctp.extend(40_000u16.to_be_bytes());
    sctp.extend(to.port().to_be_bytes());
    sctp.extend([0; 8]);
    // INIT of 20 bytes: tag, window, streams out and in, first number.
    sctp.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c(&sctp);
    sctp[8..12].copy_from_slice(&checksum.to_le_bytes());
    let mut ip = vec![0; IP_HEADER];
    (ip[0], ip[8], ip[9]) = (0x45, 64, PROTOCOL);
    ip[16..20].copy_from_slice(&to.ip().octets());
    [ip, sctp].concat()
}

fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}
