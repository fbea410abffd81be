# On files from the wild

57 mesh and point files that nobody here made, in eight formats, from games, robot simulators, scanner libraries and test
suites; their licences do not allow to ship them. They checked the choices above, they made none.

@TABLE@
