"""What is on a host: where its Mastodon is and how it is set up."""
