//! What `understudy` understands on its command line.
