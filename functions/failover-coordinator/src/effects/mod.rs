//! What steps do to the world, each behind a trait small enough for a double.

pub mod archive;
pub mod aurora;
pub mod engine;
pub mod events;
pub mod executions;
pub mod faults;
pub mod inspection;
pub mod notices;
pub mod probes;
pub mod processor;
pub mod public_name;
pub mod tail;
pub mod timer;

pub use archive::Archive;
pub use aurora::Aurora;
pub use engine::Engine;
pub use events::Events;
pub use executions::Executions;
pub use faults::Faults;
pub use inspection::Inspection;
pub use notices::Notices;
pub use probes::Probes;
pub use processor::Processor;
pub use public_name::PublicName;
pub use tail::Tail;
pub use timer::Timer;
