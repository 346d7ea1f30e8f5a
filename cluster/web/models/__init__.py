"""What the page shows, as plain values: nothing here knows a widget, a socket or a clock."""
