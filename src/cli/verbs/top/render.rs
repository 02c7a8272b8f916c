// SPDX-License-Identifier: GPL-2.0-or-later
//! What the screen shows, at any size. Says everything in words and figures: colours only repeat it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::parts::{self, bar, number};
use super::state::State;
use super::{HEIGHT, WIDTH};

/// How things look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) colours: bool,
}

impl Theme {
    fn title(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colours {
            style.fg(Color::Cyan)
        } else {
            style
        }
    }

    fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colours {
            style.fg(Color::Red)
        } else {
            style.add_modifier(Modifier::REVERSED)
        }
    }
}

/// Lines below a title.
struct Part {
    title: String,
    rows: Vec<String>,
}

impl Part {
    fn height(&self) -> u16 {
        u16::try_from(self.rows.len() + 1).unwrap_or(u16::MAX)
    }
}

/// Draws all of it.
pub(super) fn draw(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if area.width < WIDTH || area.height < HEIGHT {
        let text = format!(
            "too small: {}x{}, needs {WIDTH}x{HEIGHT}",
            area.width, area.height
        );
        put(buffer, area, 0, Line::styled(text, theme.alarm()));
        return;
    }
    let footer = Rect::new(area.x, area.bottom() - 1, area.width, 1);
    put(buffer, footer, 0, Line::styled(KEYS, theme.title()));
    let body = Rect::new(area.x, area.y, area.width, area.height - 1);
    let mut pen = Pen {
        buffer,
        theme,
        area: body,
        y: 0,
    };
    pen.line(header(state, theme));
    pen.line(second(state, theme));
    if state.help {
        pen.part(&Part {
            title: "KEYS".to_owned(),
            rows: HELP.iter().map(|row| (*row).to_owned()).collect(),
        });
        return;
    }
    if state.instance().is_none() {
        return;
    }
    sections(state, &mut pen);
}

/// How many lines there would be if nothing had to be left out; within reason.
pub(super) fn wanted_height(state: &State) -> u16 {
    let lists = talkers(state).height().max(drops(state).height());
    let rest = [pool4(state), queues(state), sync(state)];
    let rest = rest.iter().flatten().map(Part::height);
    // The header, rates, sessions, and the keys.
    let fixed = 2 + 6 + 3 + 1;
    let all = rest.chain([lists]).fold(fixed, u16::saturating_add);
    all.clamp(HEIGHT, HEIGHT_MAX)
}

fn sections(state: &State, pen: &mut Pen<'_>) {
    pen.part(&traffic(state));
    if let Some(part) = sessions(state) {
        pen.part(&part);
    }
    let (pool4, queues, sync) = (pool4(state), queues(state), sync(state));
    let height = |part: &Option<Part>| part.as_ref().map_or(0, Part::height);
    let tail = height(&queues).saturating_add(height(&sync));
    let left = pen.left().saturating_sub(tail);
    let (talkers, drops) = (talkers(state), drops(state));
    let lists = talkers.height().max(drops.height());
    // Half for each where there is not enough for both.
    let lists = lists.min(left.saturating_sub(height(&pool4)).max(left - left / 2));
    pen.beside(&talkers, &drops, lists);
    if let Some(part) = pool4 {
        pen.bounded(&part, left - lists);
    }
    for part in [queues, sync].iter().flatten() {
        pen.part(part);
    }
}

fn header(state: &State, theme: Theme) -> Line<'static> {
    let mut spans = vec![
        Span::styled("tylo top", theme.title()),
        Span::raw(format!("  {}", state.host)),
    ];
    if state.paused {
        spans.insert(1, Span::styled("  PAUSED", theme.alarm()));
    }
    if let Some(sample) = &state.latest {
        let health = &sample.health;
        let up = match health.began {
            0 => String::new(),
            began => format!(
                ", up {}",
                parts::age(sample.wall.saturating_sub(began) / 1000)
            ),
        };
        spans.push(Span::raw(format!("  tylod {}{up}  ", health.version)));
        spans.push(if health.ready {
            Span::raw("ready")
        } else {
            Span::styled("NOT READY", theme.alarm())
        });
        if health.journal_lost > 0 {
            let text = format!("  {} CHANGES NOT STORED", health.journal_lost);
            spans.push(Span::styled(text, theme.alarm()));
        }
    }
    spans.push(Span::raw(format!(
        "  every {} s",
        state.interval.as_secs_f64()
    )));
    Line::from(spans)
}

/// Which instance this is, or why there is none.
fn second(state: &State, theme: Theme) -> Line<'static> {
    let Some(sample) = &state.latest else {
        return match &state.trouble {
            Some(trouble) => Line::styled(format!("trying again: {trouble}"), theme.alarm()),
            None => Line::raw("asking tylod ..."),
        };
    };
    if let Some(trouble) = &state.trouble {
        let age = state.now.saturating_sub(sample.at).as_secs();
        let text = format!("all of this is {age} s old, trying again: {trouble}");
        return Line::styled(text, theme.alarm());
    }
    let Some((instance, place, number)) = state.instance() else {
        let text = match sample.health.instances.len() {
            0 => "there is no instance; add one with 'jool instance add'".to_owned(),
            n => format!("there is no such instance; others: {n}, key i"),
        };
        return Line::styled(text, theme.alarm());
    };
    let mut spans = vec![Span::styled(parts::instance(instance), theme.title())];
    if number > 1 {
        spans.push(Span::raw(format!("  ({} of {number})", place + 1)));
    }
    if let Some(denied) = &sample.denied {
        let text = format!("  totals only: {denied}");
        spans.push(Span::styled(text, theme.alarm()));
    } else {
        spans.push(Span::raw(parts::journal(state)));
    }
    Line::from(spans)
}

fn traffic(state: &State) -> Part {
    Part {
        title: format!(
            "{:<8}{:>10}{:>10}   {:>10}{:>10}   {:>10}{:>10}",
            "RATES", "6to4 pkt/s", "bit/s", "4to6 pkt/s", "bit/s", "dropped/s", "left/s"
        ),
        rows: parts::traffic(state),
    }
}

fn sessions(state: &State) -> Option<Part> {
    let (title, rows) = parts::sessions(state)?;
    Some(Part { title, rows })
}

fn talkers(state: &State) -> Part {
    let (title, rows) = parts::talkers(state);
    Part { title, rows }
}

fn drops(state: &State) -> Part {
    Part {
        title: format!("{:<18} {:>6} {:>7}", "NOT TRANSLATED", "/s", "total"),
        rows: parts::drops(state),
    }
}

fn pool4(state: &State) -> Option<Part> {
    let rows = parts::pool4(state);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let range = format!("{:<4} {} {}", row.protocol, row.addresses, row.ports);
            let of = format!("{} of {}", number(row.used), number(row.total));
            let part = row.part();
            format!(
                "{range:<39.39} {of:>15} {:>6.1}% {}",
                part * 100.0,
                bar(part, 14)
            )
        })
        .collect();
    let title = format!("{:<39} {:>15} {:>7}", "POOL4", "in use", "");
    (!rows.is_empty()).then_some(Part { title, rows })
}

fn queues(state: &State) -> Option<Part> {
    let (title, rows) = parts::queues(state)?;
    Some(Part { title, rows })
}

fn sync(state: &State) -> Option<Part> {
    let (title, rows) = parts::sync(state)?;
    Some(Part { title, rows })
}

/// Writes line after line.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    theme: Theme,
    area: Rect,
    y: u16,
}

impl Pen<'_> {
    fn left(&self) -> u16 {
        self.area.height.saturating_sub(self.y)
    }

    fn line(&mut self, line: Line<'_>) {
        put(self.buffer, self.area, self.y, line);
        self.y = self.y.saturating_add(1);
    }

    fn part(&mut self, part: &Part) {
        self.bounded(part, u16::MAX);
    }

    /// Says how many rows are left out.
    fn bounded(&mut self, part: &Part, height: u16) {
        let height = height.min(self.left());
        let area = Rect::new(self.area.x, self.area.y, self.area.width, self.area.height);
        column(self.buffer, self.theme, area, self.y, part, height);
        self.y = self.y.saturating_add(height.min(part.height()));
    }

    fn beside(&mut self, one: &Part, other: &Part, height: u16) {
        let height = height.min(self.left());
        let left = RIGHT_AT + (self.area.width - WIDTH) / 2;
        let Rect { x, y, width, .. } = self.area;
        let area = Rect::new(x, y, left - 1, self.area.height);
        column(self.buffer, self.theme, area, self.y, one, height);
        let area = Rect::new(x + left, y, width - left, self.area.height);
        column(self.buffer, self.theme, area, self.y, other, height);
        self.y = self.y.saturating_add(height);
    }
}

fn column(buffer: &mut Buffer, theme: Theme, area: Rect, y: u16, part: &Part, height: u16) {
    let room = usize::from(height.saturating_sub(1));
    let mut title = part.title.clone();
    let hidden = part.rows.len().saturating_sub(room);
    if hidden > 0 {
        title = format!("{}  +{hidden} more", title.trim_end());
    }
    if height > 0 {
        put(buffer, area, y, Line::styled(title, theme.title()));
    }
    for (row, below) in part.rows.iter().take(room).zip(1u16..) {
        put(
            buffer,
            area,
            y.saturating_add(below),
            Line::raw(row.as_str()),
        );
    }
}

/// Writes a line, or what has room of it.
fn put(buffer: &mut Buffer, area: Rect, y: u16, mut line: Line<'_>) {
    for span in &mut line.spans {
        // What the daemon says must not have the terminal do things.
        if span.content.contains(char::is_control) {
            span.content = span.content.replace(char::is_control, "?").into();
        }
    }
    let line_area = Rect::new(area.x, area.y.saturating_add(y), area.width, 1);
    line.render(line_area.intersection(area), buffer);
}

/// More lines than anybody reads.
const HEIGHT_MAX: u16 = 1_000;

/// Where the right column begins at the least width.
const RIGHT_AT: u16 = 47;

const KEYS: &str = "q quit  i next instance  p pause  s protocol  g group  +/- interval  ? help";

const HELP: &[&str] = &[
    "q, Esc, Ctrl-C   quit",
    "i, Tab           the next instance",
    "p, Space         pause, and go on",
    "s                clients by sessions of all protocols, TCP, UDP, ICMP",
    "g                clients by address, or by the first 64, 56 or 48 bits of it",
    "+, -             ask less often, more often",
    "?, h             this",
    "",
    "6to4 is what came in over IPv6 and went out over IPv4. What is dropped or left to the",
    "kernel is counted by reason, as in 'jool stats display --explain'.",
    "",
    "The session table is read in the background, and rests 20 times as long as that took.",
    "'+N' behind the number of a client: it may have up to N sessions more.",
];

#[cfg(test)]
mod tests;
