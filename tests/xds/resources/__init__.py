"""What proxies are sent."""
