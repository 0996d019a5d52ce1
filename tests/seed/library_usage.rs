use crabkv::CrabKv;
use std::num::NonZeroUsize;
use std::time::Duration;

fn open_engine() -> std::io::Result<CrabKv> {
    CrabKv::builder("data")
        .cache_capacity(NonZeroUsize::new(2048).unwrap())
        .default_ttl(Duration::from_secs(30))
        .sync_interval(Duration::from_millis(100))  // Fsync every 100ms instead of per-write
        .compression(true)                           // Enable Snappy compression
        .async_compaction(true)                      // Background compaction thread
        .write_back_cache(true)                      // Buffer writes in memory
        .build()
}

fn example_write_back() -> std::io::Result<()> {
    let db = CrabKv::builder("data")
        .write_back_cache(true)
        .build()?;
    
    // Writes are buffered in memory (fast)
    db.put("key1".into(), "value1".into())?;
    db.put("key2".into(), "value2".into())?;
    
    // Explicit flush to persist buffered writes to WAL
    db.flush()?;
    
    Ok(())
}

fn example_batch_writes() -> std::io::Result<()> {
    let db = CrabKv::builder("data").build()?;
    
    // Batch multiple writes with a single fsync
    let entries = vec![
        ("key1".to_string(), "value1".to_string(), None),
        ("key2".to_string(), "value2".to_string(), Some(Duration::from_secs(60))),
    ];
    db.put_batch(entries)?;
    
    Ok(())
}
