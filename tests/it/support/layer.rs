//! Real layers: a tar archive of one file, and gzip around it, so that other tools can unpack what the rig pushes.
//!
//! The gzip members use stored blocks: the rig needs valid files, not small ones, and no compression library.

use super::content::random_bytes;
use bytes::Bytes;

/// Bytes per tar record.
const RECORD: usize = 512;
/// Most bytes a stored deflate block can hold.
const STORED_LIMIT: usize = 65_535;

/// A layer as it lies in a registry, and the digest of its unpacked tar, which the image's config names.
pub struct Layer {
    pub blob: Bytes,
    pub tar: Bytes,
}

/// A gzipped tar with one file of `size` bytes made from `seed`. The blob is a little larger than `size`.
pub fn layer(seed: u64, size: usize) -> Layer {
    let tar = Bytes::from(tar(&format!("data-{seed}"), &random_bytes(seed, size)));
    Layer { blob: gzip(&tar).into(), tar }
}

/// A ustar archive with one regular file.
pub fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; RECORD];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    let mut archive = header.to_vec();
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(RECORD) + 2 * RECORD, 0);
    archive
}

/// One gzip member (RFC 1952) of stored blocks (RFC 1951, 3.2.4).
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = data.chunks(STORED_LIMIT).peekable();
    if blocks.peek().is_none() {
        member.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("at most STORED_LIMIT");
        member.push(u8::from(blocks.peek().is_none()));
        member.extend_from_slice(&length.to_le_bytes());
        member.extend_from_slice(&(!length).to_le_bytes());
        member.extend_from_slice(block);
    }
    member.extend_from_slice(&crc32(data).to_le_bytes());
    let size = u32::try_from(data.len() & 0xffff_ffff).expect("masked");
    member.extend_from_slice(&size.to_le_bytes());
    member
}

fn crc32(data: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| (0..8).fold(byte, |rest, _| if rest & 1 == 1 { 0xEDB8_8320 ^ (rest >> 1) } else { rest >> 1 }))
        .collect();
    !data.iter().fold(!0u32, |sum, byte| table[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8))
}
