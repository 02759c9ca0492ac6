//! A client made of frames against the server's side.

use super::*;
use frame::Decoder;

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut connection = Connection::accept(server);
    let mut compressor = Compressor::new();
    let open = frame::syn_stream(1, &compressor.encode(&[("streamtype", "data"), ("port", "80")]));
    client.write_all(&open).await.unwrap();
    client.write_all(&frame::data(1, b"ping", true)).await.unwrap();
    let mut stream = connection.next_stream().await.unwrap();
    assert_eq!(stream.header("port"), Some("80"));
    stream.reply().await;
    let mut incoming = stream.take_incoming().unwrap();
    assert_eq!(incoming.recv().await.unwrap(), "ping");
    assert!(incoming.recv().await.is_none(), "the client's half is closed");
    let out = stream.out();
    out.send(Bytes::from_static(b"pong")).await.unwrap();
    out.end().await.unwrap();
    connection.close().await;
    let mut decoder = Decoder::default();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    decoder.buffer().extend_from_slice(&bytes);
    assert!(matches!(decoder.next_frame().unwrap(), Some(Frame::Headers { .. })), "the reply");
    let data = Frame::Data { stream: 1, bytes: Bytes::from_static(b"pong"), end: false };
    assert_eq!(decoder.next_frame().unwrap(), Some(data));
    assert!(matches!(decoder.next_frame().unwrap(), Some(Frame::Data { end: true, .. })));
    assert_eq!(decoder.next_frame().unwrap(), Some(Frame::GoAway));
}
