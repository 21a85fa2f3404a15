enum InstalledSystemsPlaceholder {}
