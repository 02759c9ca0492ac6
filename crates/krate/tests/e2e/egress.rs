//! The way out of a cluster. What is outside here is a network namespace of the test's own, in which the
//! whole cluster is started; nothing leaves it.

use crate::cluster::Cluster;
use crate::world::{self, OUTSIDE};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};

/// Answers every connection with a page that says from where it came.
fn serve_pages(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let page = format!("seen from {}\n", stream.peer_addr().unwrap().ip());
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    }
}

/// Says of every name that its IPv4 address is [`OUTSIDE`], and that it has no other.
fn serve_names(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((n, client)) = socket.recv_from(&mut buffer) {
        let question_end = 12 + buffer[12..n].iter().position(|b| *b == 0).unwrap() + 5;
        let is_a = buffer[question_end - 4..question_end - 2] == [0, 1];
        let mut reply = buffer[..2].to_vec();
        reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        reply.extend(&buffer[12..question_end]);
        if is_a {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(OUTSIDE.octets());
        }
        socket.send_to(&reply, client).unwrap();
    }
}

#[test]
fn pods_reach_what_is_outside_with_nat_and_only_then() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    world::enter();
    let resolv_conf = folder.path().join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver {OUTSIDE}\n")).unwrap();
    world::bind(&resolv_conf, "/etc/resolv.conf");
    let pages = TcpListener::bind((OUTSIDE, 80)).unwrap();
    let names = UdpSocket::bind((OUTSIDE, 53)).unwrap();
    std::thread::spawn(move || serve_pages(pages));
    std::thread::spawn(move || serve_names(&names));

    let client = |name: &str, url: &str| {
        ["run", name, "--image=busybox:1", "--restart=Never", "--command", "--", "wget", "-qO-", url]
            .map(str::to_owned)
    };
    for (egress, ends) in [("nat", "Succeeded"), ("none", "Failed")] {
        let c = Cluster::start_with(&format!("egress-{egress}"), 2, &["--egress", egress]);
        for (pod, url) in [("by-address", "http://203.0.113.1/"), ("by-name", "http://elsewhere.example/")] {
            c.kubectl(&client(pod, url).each_ref().map(String::as_str));
            let phase = ["get", "pod", pod, "-o", "jsonpath={.status.phase}"];
            c.until(&phase, "the client to end", |phase| phase == ends);
            let page = c.kubectl(&["logs", pod]);
            assert_eq!(page.contains("seen from"), egress == "nat", "{pod} with {egress}: {page}");
        }
    }
}
