//! From all scans to the image.

use crate::Error;
use crate::frame::{BLOCK, Component, Frame};
use crate::header::{Header, Tables};
use crate::rows::Rows;
use crate::scan::{Reader, Scan};
use crate::segments::{Segments, marker};

/// More scans only take time: encoders write about ten.
const MOST_SCANS: usize = 100;
/// If these coefficients are missing, libjpeg guesses them, and the image is not what the file says.
const GUESSED: std::ops::RangeInclusive<usize> = 1..=9;

/// Decodes all scans.
pub(crate) fn decode(header: Header<'_>, pixels: &mut [u8]) -> Result<(), Error> {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2") {
        // SAFETY: this processor has the features for which the function is compiled.
        #[allow(unsafe_code)]
        return unsafe { decode_with_avx2(header, pixels) };
    }
    decode_with(header, pixels)
}

/// The same code, compiled with wider vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn decode_with_avx2(header: Header<'_>, pixels: &mut [u8]) -> Result<(), Error> {
    decode_with(header, pixels)
}

#[inline(always)]
fn decode_with(header: Header<'_>, pixels: &mut [u8]) -> Result<(), Error> {
    let Header {
        frame,
        color,
        tables,
        scan,
        segments,
        ..
    } = header;
    let rows = Rows::new(&frame, color, pixels);
    let first = Scan::read(&frame, scan)?;
    if !frame.progressive && first.members.len() == frame.components.len() {
        at_once(&frame, &tables, &first, segments, rows)
    } else {
        Collector::new(frame, tables).decode(first, segments, rows)
    }
}

fn steps(tables: &Tables, frame: &Frame, component: usize) -> Result<[u16; 64], Error> {
    tables.quantisation[frame.components[component].quantisation]
        .ok_or(Error::Broken("a component's quantisation table is missing"))
}

/// One scan that contains everything: rows are produced while it is read.
#[inline(always)]
fn at_once(
    frame: &Frame,
    tables: &Tables,
    scan: &Scan,
    segments: Segments<'_>,
    mut rows: Rows<'_>,
) -> Result<(), Error> {
    for component in 0..frame.components.len() {
        rows.set_steps(component, steps(tables, frame, component)?);
    }
    let mut reader = Reader::new(frame, tables, scan, &segments)?;
    let places: Vec<usize> = scan.members.iter().map(|member| member.component).collect();
    for unit_row in 0..frame.units.1 {
        for unit in 0..frame.units.0 {
            reader.begin_unit()?;
            for (member, &component) in places.iter().enumerate() {
                let Component { h, v, .. } = frame.components[component];
                for (row, column) in (0..v).flat_map(|row| (0..h).map(move |column| (row, column))) {
                    let mut block = [0; 64];
                    let flat = reader.block(member, &mut block)?;
                    rows.put(component, unit * h + column, row, &block, flat);
                }
            }
            reader.end_unit()?;
        }
        rows.finish(unit_row);
    }
    let mut tables = tables.clone();
    match next_scan(reader.bits.rest(), &mut tables)? {
        None => Ok(()),
        Some(_) => Err(Error::Broken("there is a scan after the last one")),
    }
}

/// The content of the next scan's header, and the bytes after it; `None` at the end of the image.
fn next_scan<'a>(
    mut segments: Segments<'a>,
    tables: &mut Tables,
) -> Result<Option<(&'a [u8], Segments<'a>)>, Error> {
    loop {
        let segment = segments.next()?;
        match segment.marker {
            marker::EOI => return Ok(None),
            marker::SOS => return Ok(Some((segment.content, segments))),
            _ => tables.read(segment)?,
        }
    }
}

/// Collects the coefficients of all scans, and turns them into pixels at the end.
struct Collector {
    frame: Frame,
    tables: Tables,
    planes: Vec<Plane>,
}

/// A component's blocks, in rows that are padded to whole units.
struct Plane {
    blocks: Vec<[i16; 64]>,
    columns: usize,
    /// The steps at the component's first scan.
    steps: Option<[u16; 64]>,
    /// For each coefficient, how many low bits are still missing; `None` before its first scan.
    missing: [Option<u8>; 64],
}

impl Collector {
    fn new(frame: Frame, tables: Tables) -> Self {
        let plane = |component: &Component| Plane {
            blocks: vec![[0; 64]; frame.units.0 * component.h * frame.units.1 * component.v],
            columns: frame.units.0 * component.h,
            steps: None,
            missing: [None; 64],
        };
        let planes = frame.components.iter().map(plane).collect();
        Self {
            frame,
            tables,
            planes,
        }
    }

    #[inline(always)]
    fn decode(mut self, first: Scan, segments: Segments<'_>, mut rows: Rows<'_>) -> Result<(), Error> {
        let (mut scan, mut segments, mut count) = (first, segments, 1);
        loop {
            self.note(&scan)?;
            let rest = self.read(&scan, &segments)?;
            let Some((content, after)) = next_scan(rest, &mut self.tables)? else {
                break;
            };
            count += 1;
            if count > MOST_SCANS {
                return Err(Error::Unsupported("it has more than 100 scans"));
            }
            scan = Scan::read(&self.frame, content)?;
            segments = after;
        }
        self.check_complete()?;
        self.put(&mut rows);
        Ok(())
    }

    /// Checks whether this scan may come now.
    fn note(&mut self, scan: &Scan) -> Result<(), Error> {
        for member in &scan.members {
            let plane = &mut self.planes[member.component];
            if plane.steps.is_none() {
                plane.steps = Some(steps(&self.tables, &self.frame, member.component)?);
            }
            if !self.frame.progressive {
                if plane.missing[0].replace(0).is_some() {
                    return Err(Error::Unsupported("a component comes in two scans"));
                }
                continue;
            }
            for missing in &mut plane.missing[scan.band.start..=scan.band.end] {
                if scan.high != missing.unwrap_or(0) {
                    return Err(Error::Unsupported("a scan refines what was not there before"));
                }
                *missing = Some(scan.band.low);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn read<'a>(&mut self, scan: &Scan, segments: &Segments<'a>) -> Result<Segments<'a>, Error> {
        let mut reader = Reader::new(&self.frame, &self.tables, scan, segments)?;
        if let [member] = &scan.members[..] {
            let (columns, rows) = self.frame.components[member.component].blocks();
            let plane = &mut self.planes[member.component];
            for line in plane.blocks.chunks_exact_mut(plane.columns).take(rows) {
                for block in &mut line[..columns] {
                    reader.begin_unit()?;
                    reader.block(0, block)?;
                    reader.end_unit()?;
                }
            }
            return Ok(reader.bits.rest());
        }
        for (unit_row, unit) in
            (0..self.frame.units.1).flat_map(|row| (0..self.frame.units.0).map(move |unit| (row, unit)))
        {
            reader.begin_unit()?;
            for (index, member) in scan.members.iter().enumerate() {
                let (h, v) = (
                    self.frame.components[member.component].h,
                    self.frame.components[member.component].v,
                );
                let plane = &mut self.planes[member.component];
                for row in unit_row * v..unit_row * v + v {
                    for block in &mut plane.blocks[row * plane.columns + unit * h..][..h] {
                        reader.block(index, block)?;
                    }
                }
            }
            reader.end_unit()?;
        }
        Ok(reader.bits.rest())
    }

    /// Refuses what libjpeg would make up: it guesses what a progressive file omits, and shows grey for a missing
    /// component.
    fn check_complete(&self) -> Result<(), Error> {
        if self.planes.iter().any(|plane| plane.missing[0].is_none()) {
            return Err(Error::Unsupported("a component has no scan"));
        }
        let incomplete = |plane: &Plane| plane.missing[GUESSED].iter().any(|&missing| missing != Some(0));
        if self.frame.progressive && self.planes.iter().any(incomplete) {
            return Err(Error::Unsupported("it is progressive and lacks its last scans"));
        }
        Ok(())
    }

    #[inline(always)]
    fn put(&self, rows: &mut Rows<'_>) {
        for (component, plane) in self.planes.iter().enumerate() {
            rows.set_steps(component, plane.steps.unwrap_or([1; 64]));
        }
        for unit_row in 0..self.frame.units.1 {
            for (component, plane) in self.planes.iter().enumerate() {
                let v = self.frame.components[component].v;
                let columns = self.frame.components[component].width.div_ceil(BLOCK);
                let lines = plane
                    .blocks
                    .chunks_exact(plane.columns)
                    .skip(unit_row * v)
                    .take(v);
                for (row, line) in lines.enumerate() {
                    for (column, block) in line[..columns].iter().enumerate() {
                        let flat = block[1..].iter().all(|&coefficient| coefficient == 0);
                        rows.put(component, column, row, block, flat);
                    }
                }
            }
            rows.finish(unit_row);
        }
    }
}
