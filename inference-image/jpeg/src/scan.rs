//! A scan: its header, and its blocks in their order.

use crate::Error;
use crate::bits::Bits;
use crate::blocks::{Band, difference, sequential};
use crate::frame::Frame;
use crate::header::Tables;
use crate::huffman::{Specification, Table};
use crate::segments::Segments;

/// A component of a scan: its position in the frame, and its tables.
pub(crate) struct Member {
    pub(crate) component: usize,
    dc: usize,
    ac: usize,
}

/// A scan's header.
pub(crate) struct Scan {
    pub(crate) members: Vec<Member>,
    pub(crate) band: Band,
    /// The bits that earlier scans omitted; 0 if this is the first scan of the band.
    pub(crate) high: u8,
}

impl Scan {
    pub(crate) fn read(frame: &Frame, content: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::Broken("a scan's header has the wrong length");
        let [count, rest @ ..] = content else {
            return Err(WRONG);
        };
        let (members, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or(WRONG)?;
        let &[start, end, bits] = rest else {
            return Err(WRONG);
        };
        if !(1..=4).contains(count) {
            return Err(Error::Broken("a scan does not have 1 to 4 components"));
        }
        let members = members.as_chunks::<2>().0;
        let found = frame.find(members.iter().map(|&[id, _]| id))?;
        let member = |(component, &[_, tables]): (usize, &[u8; 2])| Member {
            component,
            dc: usize::from(tables >> 4),
            ac: usize::from(tables & 15),
        };
        let scan = Self {
            members: found.into_iter().zip(members).map(member).collect(),
            band: Band {
                start: usize::from(start),
                end: usize::from(end),
                low: bits & 15,
                ends: 0,
            },
            high: bits >> 4,
        };
        if frame.progressive {
            scan.checked()
        } else {
            Ok(scan)
        }
    }

    fn checked(self) -> Result<Self, Error> {
        let Band { start, end, low, .. } = self.band;
        let alone = self.members.len() == 1;
        let band = if start == 0 {
            end == 0
        } else {
            start <= end && end < 64 && alone
        };
        if !band || low > 13 || (self.high != 0 && self.high != low + 1) {
            return Err(Error::Broken("a scan's parameters are impossible"));
        }
        Ok(self)
    }
}

/// What is decoded into a block.
#[derive(Clone, Copy)]
enum Process {
    Sequential,
    DcFirst,
    DcRefinement,
    AcFirst,
    AcRefinement,
}

/// Decodes the blocks of one scan, in their order.
pub(crate) struct Reader<'a> {
    pub(crate) bits: Bits<'a>,
    process: Process,
    band: Band,
    coders: Vec<Coder>,
    interval: usize,
    until_restart: usize,
    restart: u8,
}

struct Coder {
    dc: Option<Table>,
    ac: Option<Table>,
    prediction: i32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        frame: &Frame,
        tables: &Tables,
        scan: &Scan,
        segments: &Segments<'a>,
    ) -> Result<Self, Error> {
        let process = match (frame.progressive, scan.band.start, scan.high) {
            (false, ..) => Process::Sequential,
            (true, 0, 0) => Process::DcFirst,
            (true, 0, _) => Process::DcRefinement,
            (true, _, 0) => Process::AcFirst,
            (true, ..) => Process::AcRefinement,
        };
        let coder = |member: &Member| {
            let dc = matches!(process, Process::Sequential | Process::DcFirst);
            let ac = matches!(
                process,
                Process::Sequential | Process::AcFirst | Process::AcRefinement
            );
            Ok(Coder {
                dc: dc.then(|| table(tables, true, member.dc, frame)).transpose()?,
                ac: ac.then(|| table(tables, false, member.ac, frame)).transpose()?,
                prediction: 0,
            })
        };
        Ok(Self {
            bits: Bits::new(segments),
            process,
            band: scan.band.clone(),
            coders: scan.members.iter().map(coder).collect::<Result<_, _>>()?,
            interval: tables.restart_interval,
            until_restart: tables.restart_interval,
            restart: 0,
        })
    }

    /// Before each unit: consumes a restart marker if there is one.
    #[inline(always)]
    pub(crate) fn begin_unit(&mut self) -> Result<(), Error> {
        if self.interval > 0 {
            if self.until_restart == 0 {
                self.pass_restart()?;
            }
            self.until_restart -= 1;
        }
        Ok(())
    }

    #[cold]
    fn pass_restart(&mut self) -> Result<(), Error> {
        self.bits.restart(self.restart)?;
        self.restart = (self.restart + 1) & 7;
        self.until_restart = self.interval;
        self.band.ends = 0;
        for coder in &mut self.coders {
            coder.prediction = 0;
        }
        Ok(())
    }

    /// After each unit.
    #[inline(always)]
    pub(crate) fn end_unit(&self) -> Result<(), Error> {
        if self.bits.overrun() {
            Err(self.bits.missing())
        } else {
            Ok(())
        }
    }

    /// Decodes a block of the scan's `member`; returns whether it is known to have only its first coefficient.
    #[inline(always)]
    pub(crate) fn block(&mut self, member: usize, block: &mut [i16; 64]) -> Result<bool, Error> {
        let coder = &mut self.coders[member];
        if let (Process::Sequential, Some(dc), Some(ac)) = (self.process, &coder.dc, &coder.ac) {
            return sequential(&mut self.bits, dc, ac, &mut coder.prediction, block);
        }
        self.progressive(member, block).map(|()| false)
    }

    fn progressive(&mut self, member: usize, block: &mut [i16; 64]) -> Result<(), Error> {
        let (bits, coder) = (&mut self.bits, &mut self.coders[member]);
        match (self.process, &coder.dc, &coder.ac) {
            (Process::DcFirst, Some(dc), _) => {
                let difference = difference(bits, dc)?;
                coder.prediction = coder.prediction.wrapping_add(difference);
                block[0] = (coder.prediction << self.band.low) as i16;
            }
            (Process::DcRefinement, ..) => block[0] |= i16::from(bits.bit()) << self.band.low,
            (Process::AcFirst, _, Some(ac)) => self.band.first(bits, ac, block)?,
            (Process::AcRefinement, _, Some(ac)) => self.band.refine(bits, ac, block)?,
            // The tables match the coding process.
            _ => {}
        }
        Ok(())
    }
}

/// A table that the scan needs. A sequential file may omit the standard ones.
fn table(tables: &Tables, dc: bool, index: usize, frame: &Frame) -> Result<Table, Error> {
    let given = if dc { &tables.dc } else { &tables.ac };
    let given = given.get(index).copied().flatten();
    let usual = || {
        (!frame.progressive)
            .then(|| Specification::standard(dc, index))
            .flatten()
    };
    let specification = given.or_else(usual);
    let specification = specification.ok_or(Error::Broken("a scan needs a Huffman table that is missing"))?;
    if dc && !Table::is_for_dc(&specification) {
        return Err(Error::Broken("a Huffman table has the wrong kind"));
    }
    Table::new(&specification)
}
