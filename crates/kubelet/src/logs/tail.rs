//! Where the last lines of a file begin.

use std::io::{self, SeekFrom};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

const BLOCK: u64 = 16 << 10;

/// The offset at which the last `lines` lines begin; reads backwards and no further than needed.
pub async fn start_of_last(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.metadata().await?.len();
    let mut position = end;
    let mut found = 0;
    let mut block = Vec::new();
    while position > 0 {
        let from = position.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(from)).await?;
        block.clear();
        (&mut *file).take(position - from).read_to_end(&mut block).await?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let at = from + offset as u64;
            // The end of the last line does not begin another one.
            if *byte == b'\n' && at + 1 != end {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        if lines == 0 {
            return Ok(end);
        }
        position = from;
    }
    Ok(0)
}
