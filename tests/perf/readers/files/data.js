window.BENCHMARK_DATA = {
  "lastUpdate": 1772359200000,
  "repoUrl": "https://example.com",
  "entries": {
    "Benchmark": [
      {
        "commit": {
          "author": {
            "name": "a"
          },
          "id": "0000000000000000000000000000000000000000",
          "message": "m",
          "timestamp": "2026-03-01T10:00:00Z",
          "url": "https://example.com"
        },
        "date": 1772359200000,
        "tool": "cargo",
        "benches": [
          {
            "name": "sort",
            "value": 100.0,
            "range": "\u00b1 2",
            "unit": "ns/iter"
          }
        ]
      },
      {
        "commit": {
          "author": {
            "name": "a"
          },
          "id": "0000000000000000000000000000000000000001",
          "message": "m",
          "timestamp": "2026-03-02T10:00:00Z",
          "url": "https://example.com"
        },
        "date": 1772445600000,
        "tool": "cargo",
        "benches": [
          {
            "name": "sort",
            "value": 101.0,
            "range": "\u00b1 2",
            "unit": "ns/iter"
          }
        ]
      },
      {
        "commit": {
          "author": {
            "name": "a"
          },
          "id": "0000000000000000000000000000000000000002",
          "message": "m",
          "timestamp": "2026-03-03T10:00:00Z",
          "url": "https://example.com"
        },
        "date": 1772532000000,
        "tool": "cargo",
        "benches": [
          {
            "name": "sort",
            "value": 130.0,
            "range": "\u00b1 2",
            "unit": "ns/iter"
          }
        ]
      }
    ]
  }
}
