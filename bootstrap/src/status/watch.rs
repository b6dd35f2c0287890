//! `understudy status --watch`: a look every so often. On a terminal it is drawn in place; elsewhere each change is printed once, or
//! each look as one line of JSON. A look that fails is told, and the next one is made.

use std::time::{Duration, Instant};

use continuity::clock::now_ms;
use serde::Serialize;

use super::text::{self, Page};
use super::{Memory, Status, gather};
use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::{Output, Screen, Ui};

/// A look that has not ended by then has failed: longer than the limits of its parts together.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// How often the age of a look is drawn again while the next one is made.
const TICK: Duration = Duration::from_secs(1);

/// A look, or why there was none.
#[derive(Debug, Clone)]
struct Latest {
    /// The last look that did not fail.
    seen: Option<Status>,
    /// Why the latest look failed.
    failed: Option<String>,
}

#[derive(Serialize)]
struct FailedLook<'a> {
    at_ms: u64,
    error: &'a str,
}

/// Looks until nobody reads any more. Resources are not compared: that takes several calls for each of them.
///
/// # Errors
/// None of a look's: they are shown.
pub async fn watch(stack: &Stack, every: Duration, ui: &Ui) -> Result<(), Failure> {
    let screen = match ui.output() {
        Output::Text => Screen::open(),
        Output::Json => None,
    };
    let mut memory = Memory::default();
    let mut latest = Latest {
        seen: None,
        failed: None,
    };
    let mut printed = String::new();
    let mut next = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    loop {
        let at = next;
        let looking = async {
            tokio::time::sleep(at.saturating_duration_since(Instant::now())).await;
            let began = Instant::now();
            let looked = tokio::time::timeout(LOOK_LIMIT, gather(stack, &mut memory, false)).await;
            (began, looked)
        };
        tokio::pin!(looking);
        // The screen shows how old the look is while the next one is made.
        let (began, looked) = loop {
            tokio::select! {
                looked = &mut looking => break looked,
                _ = tick.tick(), if screen.is_some() => {
                    if let Some(screen) = &screen && draw(screen, &latest, every).is_err() {
                        return Ok(());
                    }
                }
            }
        };
        next = began + every;
        let looked = looked.unwrap_or_else(|_| {
            Err(Failure::text(format!(
                "the look did not end within {} s",
                LOOK_LIMIT.as_secs()
            )))
        });
        match looked {
            Ok(seen) => {
                latest = Latest {
                    seen: Some(seen),
                    failed: None,
                }
            }
            Err(failure) => latest.failed = Some(failure.message().to_owned()),
        }
        let told = match &screen {
            Some(screen) => draw(screen, &latest, every),
            None => print(&latest, &mut printed, ui),
        };
        // Nobody reads it any more.
        if told.is_err() {
            return Ok(());
        }
    }
}

fn draw(screen: &Screen, latest: &Latest, every: Duration) -> std::io::Result<()> {
    let (_, columns) = screen.size();
    let page = Page {
        width: Some(columns),
        colour: console::colors_enabled(),
        still: false,
    };
    screen.draw(&screenful(latest, every, now_ms(), &page))
}

/// What the screen shows at `now_ms`: when the look was, how old it is, and whether the latest one failed; then the status.
fn screenful(latest: &Latest, every: Duration, now_ms: u64, page: &Page) -> String {
    let age = latest.seen.as_ref().map_or("no look yet".to_owned(), |seen| {
        let age_ms = now_ms.saturating_sub(seen.at_ms);
        format!("looked at {} UTC, {} ago", clock(seen.at_ms), text::long(age_ms))
    });
    let head = format!("{age}; every {} s, Ctrl-C ends it", every.as_secs());
    let mut text = page.line(&head);
    if let Some(why) = &latest.failed {
        text.push('\n');
        text.push_str(&page.failed(why));
    }
    if let Some(seen) = &latest.seen {
        text.push_str("\n\n");
        text.push_str(&text::describe(seen, page));
    }
    text
}

/// A time of the day, UTC.
fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Prints a look as one line of JSON; or, for a person, if something is other than in the last one that was printed.
fn print(latest: &Latest, printed: &mut String, ui: &Ui) -> std::io::Result<()> {
    if ui.output() == Output::Json {
        return match (&latest.failed, &latest.seen) {
            (Some(error), _) => ui.one_of_many(
                &FailedLook {
                    at_ms: now_ms(),
                    error,
                },
                "",
            ),
            (None, Some(seen)) => ui.one_of_many(seen, ""),
            (None, None) => Ok(()),
        };
    }
    let page = |still| Page {
        width: None,
        colour: console::colors_enabled(),
        still,
    };
    let (essence, text) = match (&latest.failed, &latest.seen) {
        (Some(error), _) => {
            let text = page(false).failed(error);
            (page(true).failed(error), text)
        }
        (None, Some(seen)) => (
            text::describe(seen, &page(true)),
            text::describe(seen, &page(false)),
        ),
        (None, None) => return Ok(()),
    };
    if essence == *printed {
        return Ok(());
    }
    *printed = essence;
    ui.one_of_many(&(), &format!("{} UTC\n{text}\n", clock(now_ms())))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    const PAGE: Page = Page {
        width: Some(80),
        colour: false,
        still: false,
    };

    #[test]
    fn a_screen_says_when_the_look_was_and_how_old_it_is() {
        let latest = Latest {
            seen: Some(sample()),
            failed: None,
        };
        let text = screenful(&latest, Duration::from_secs(2), 303_000, &PAGE);
        assert_eq!(
            text.lines().next(),
            Some("looked at 00:05:00 UTC, 3 s ago; every 2 s, Ctrl-C ends it")
        );
        assert!(text.contains("us-east-1, epoch 1"), "{text}");
    }

    #[test]
    fn a_look_that_fails_leaves_the_last_one_on_the_screen() {
        let latest = Latest {
            seen: Some(sample()),
            failed: Some("no region gave the control table within 5 s".into()),
        };
        let text = screenful(&latest, Duration::from_secs(2), 303_000, &PAGE);
        assert!(
            text.contains("X look failed no region gave the control table"),
            "{text}"
        );
        assert!(text.contains("us-east-1, epoch 1"), "{text}");
        let none = Latest { seen: None, ..latest };
        let text = screenful(&none, Duration::from_secs(2), 303_000, &PAGE);
        assert!(text.starts_with("no look yet"), "{text}");
    }
}
