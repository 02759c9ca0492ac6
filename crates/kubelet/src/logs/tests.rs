//! Logs as a user asks for them.

use super::*;
use std::io::Write as _;

fn line(second: u8, stream: &str, tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000000Z {stream} {tag} {text}\n")
}

async fn read_all(path: &Path, query: LogQuery) -> String {
    let (out, mut pieces) = mpsc::channel(QUEUE);
    let now = "2026-01-01T00:00:10Z".parse().unwrap();
    let reading = read(path.to_owned(), query, now, CancellationToken::new(), out);
    let collecting = async {
        let mut text = Vec::new();
        while let Some(piece) = pieces.recv().await {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    };
    let (done, text) = tokio::join!(reading, collecting);
    done.unwrap();
    text
}

fn log() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let text = line(1, "stdout", "F", "one")
        + &line(2, "stderr", "P", "tw")
        + &line(2, "stderr", "F", "o")
        + &line(9, "stdout", "F", "three");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[tokio::test]
async fn parts_of_a_log_are_chosen() {
    let (_dir, path) = log();
    let default = LogQuery::default();
    assert_eq!(read_all(&path, default.clone()).await, "one\ntwo\nthree\n");
    assert_eq!(read_all(&path, LogQuery { tail_lines: Some(1), ..default.clone() }).await, "three\n");
    assert_eq!(read_all(&path, LogQuery { tail_lines: Some(0), ..default.clone() }).await, "");
    assert_eq!(
        read_all(&path, LogQuery { tail_lines: Some(99), ..default.clone() }).await,
        "one\ntwo\nthree\n"
    );
    assert_eq!(
        read_all(&path, LogQuery { since: Some(Since::Seconds(5)), ..default.clone() }).await,
        "three\n"
    );
    assert_eq!(read_all(&path, LogQuery { limit_bytes: Some(5), ..default.clone() }).await, "one\nt");
    let err = LogQuery { stream: Some(StreamKind::Stderr), ..default.clone() };
    assert_eq!(read_all(&path, err).await, "two\n");
    let stamped = LogQuery { timestamps: true, tail_lines: Some(1), ..default };
    assert_eq!(read_all(&path, stamped).await, "2026-01-01T00:00:09.000000000Z three\n");
}

#[tokio::test]
async fn following_sees_what_is_written_rotated_and_ended() {
    let (_dir, path) = log();
    let (out, mut pieces) = mpsc::channel(QUEUE);
    let ended = CancellationToken::new();
    let query = LogQuery { follow: true, tail_lines: Some(1), ..LogQuery::default() };
    let task = tokio::spawn(read(path.clone(), query, Timestamp::UNIX_EPOCH, ended.clone(), out));
    assert_eq!(pieces.recv().await.unwrap(), "three\n");
    let append = |path: &Path, text: String| {
        std::fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    };
    append(&path, line(10, "stdout", "F", "four"));
    assert_eq!(pieces.recv().await.unwrap(), "four\n");
    std::fs::rename(&path, path.with_extension("log.1")).unwrap();
    append(&path, line(11, "stdout", "F", "five"));
    assert_eq!(pieces.recv().await.unwrap(), "five\n");
    append(&path, line(12, "stdout", "F", "last"));
    ended.cancel();
    assert_eq!(pieces.recv().await.unwrap(), "last\n");
    assert!(pieces.recv().await.is_none());
    task.await.unwrap().unwrap();
}
