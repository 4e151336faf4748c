//! Reads compressed archives from disk, as a stream.

use super::error::UnpackError;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

const BUFFER: usize = 128 << 10;
/// Largest window of a zstd frame, in bytes: what every level up to 19 needs. It is memory.
const LARGEST_WINDOW: u64 = 8 << 20;

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    TarGz,
    TarZst,
    Zip,
}

impl Format {
    /// By the name: which kinds are taken for archives.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if ends(&[".tar"]) {
            Some(Self::Tar)
        } else if ends(&[".tar.gz", ".tgz"]) {
            Some(Self::TarGz)
        } else if ends(&[".tar.zst", ".tar.zstd", ".tzst"]) {
            Some(Self::TarZst)
        } else {
            ends(&[".zip"]).then_some(Self::Zip)
        }
    }

    /// By the first bytes.
    pub(super) fn of_content(file: &mut File) -> Result<Self, UnpackError> {
        let mut head = Vec::with_capacity(512);
        let read = file.take(512).read_to_end(&mut head);
        let read = read.and_then(|_| file.seek(SeekFrom::Start(0)));
        read.map_err(|error| UnpackError::reading(&error))?;
        let is_tar =
            head.get(257..262) == Some(b"ustar") || (head.len() == 512 && head.iter().all(|&byte| byte == 0));
        match head.as_slice() {
            [0x1f, 0x8b, ..] => Ok(Self::TarGz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::TarZst),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Ok(Self::Zip),
            _ if is_tar => Ok(Self::Tar),
            _ => Err(UnpackError::Archive(
                "it is neither tar, tar.gz, tar.zst nor zip by its content".into(),
            )),
        }
    }
}

/// The bytes of the tar in a file.
pub(super) fn tar_in(file: File, format: Format) -> Box<dyn Read> {
    let file = BufReader::with_capacity(BUFFER, file);
    match format {
        Format::TarGz => Box::new(MultiGzDecoder::new(file)),
        Format::TarZst => Box::new(Frames::new(file)),
        Format::Tar | Format::Zip => Box::new(file),
    }
}

/// All frames of a zstd file, one after the other: parallel compressors write many.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(LARGEST_WINDOW);
        Self {
            source,
            decoder,
            is_in_frame: false,
        }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? != length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                    return Err(io::Error::other(format!(
                        "its zstd window has {requested} bytes, but at most {max} are read: compress it again without \
                         --long and --ultra"
                    )));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame {
                if buffer.is_empty() || !self.begin()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded = self.decoder.decode_blocks(&mut self.source, UptoBlocks(1));
                decoded.map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if let (Some(stated), Some(is)) = (
                self.decoder.get_checksum_from_data(),
                self.decoder.get_calculated_checksum(),
            ) && stated != is
            {
                return Err(io::Error::other("its checksum is wrong"));
            }
            self.is_in_frame = false;
        }
    }
}
