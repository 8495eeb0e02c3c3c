"""Pictures (extra ``plots``): pure functions of tables and arrays, which draw on axes and save nothing."""
