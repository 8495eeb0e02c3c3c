# Joint standard errors of the Bauer-Preacher-Gil model on ml_sim, from glmmTMB.
# MLMED_DATA=FOLDER_WITH_ml_sim.csv Rscript validation/generate/joint.R [OUT_DIR]   (default validation/reference)
#
# glmmTMB inverts the Hessian of the whole parameter vector (ML), or adds the spread of beta-hat that comes from
# theta-hat to (X'V^-1 X)^-1 (REML). With m both a response and a regressor this differs from the usual blocks.
suppressMessages({
  library(glmmTMB)
  library(jsonlite)
})

TERMS <- "sm + smx + sy + sym + syx"
FORMULA <- sprintf("z ~ 0 + %s + (0 + %s | id)", TERMS, TERMS)
MAX_NEWTON <- 5

stack_equations <- function(d) {
  n <- nrow(d)
  top <- data.frame(id = d$id, x = d$x, m = d$m, z = d$y, sm = 0, sy = 1)
  s <- rbind(top, transform(top, z = d$m, sm = 1, sy = 0))
  transform(s, smx = sm * x, sym = sy * m, syx = sy * x)
}

matrix_of <- function(V) unname(as.matrix(V))

# Newton steps from where the optimizer stopped, on glmmTMB's own criterion and gradient.
polish <- function(obj, par) {
  steps <- 0
  for (k in seq_len(MAX_NEWTON)) {
    gradient <- as.vector(obj$gr(par))
    if (max(abs(gradient)) < 1e-9) break
    par <- par - solve(numDeriv::jacobian(obj$gr, par), gradient)
    steps <- k
  }
  H <- numDeriv::jacobian(obj$gr, par)
  list(par = par, steps = steps, gradient = max(abs(obj$gr(par))), hessian = (H + t(H)) / 2)
}

# Fixed effects, G row by row (lower triangle) and residual variances as functions of all parameters.
natural <- function(obj, full, dispersion) {
  report <- obj$env$report(full)
  S <- report$corr[[1]] * outer(report$sd[[1]], report$sd[[1]])
  log_variance <- as.vector(dispersion %*% full[names(full) == "betad"])
  c(full[names(full) == "beta"], t(S)[upper.tri(S, diag = TRUE)], exp(log_variance))
}

natural_names <- function(terms) {
  pairs <- which(upper.tri(diag(length(terms)), diag = TRUE), arr.ind = TRUE)
  c(terms, sprintf("G[%s,%s]", terms[pairs[, 2]], terms[pairs[, 1]]), "sigma2[m]", "sigma2[y]")
}

# Covariance of (beta, theta, betad) at the polished optimum; random effects are integrated out of the inverse.
joint_covariance <- function(obj, polished, reml) {
  if (!reml) return(solve(polished$hessian))
  report <- TMB::sdreport(obj, polished$par, hessian.fixed = polished$hessian, getJointPrecision = TRUE)
  V <- solve(as.matrix(report$jointPrecision))
  keep <- rownames(report$jointPrecision) != "b"
  V[keep, keep]
}

tightened <- function(fit, dispersion) {
  obj <- fit$obj
  polished <- polish(obj, fit$fit$par)
  criterion <- obj$fn(polished$par) # also updates the conditional modes
  full <- obj$env$last.par
  own <- full[names(full) != "b"]
  V <- joint_covariance(obj, polished, fit$modelInfo$REML)
  stopifnot(is.null(rownames(V)) || identical(rownames(V), names(own)))
  at <- function(p) {
    full[names(full) != "b"] <- p
    natural(obj, full, dispersion)
  }
  J <- numDeriv::jacobian(at, own)
  N <- J %*% V %*% t(J)
  list(
    logLik = -criterion, newton_steps = polished$steps, max_gradient = polished$gradient,
    names = natural_names(names(fixef(fit)$cond)), estimate = unname(at(own)), se = sqrt(diag(N)),
    vcov = matrix_of(N)
  )
}

# betad to the log residual variances of m and y: dispformula ~0 + sm + sy, or ~sm.
DISPERSION <- list("~0 + sm + sy" = diag(2), "~sm" = rbind(c(1, 1), c(1, 0)))

fit_one <- function(s, dispformula, reml) {
  fit <- glmmTMB(as.formula(FORMULA), dispformula = as.formula(dispformula), data = s, REML = reml)
  full <- vcov(fit, full = TRUE)
  conditional <- vcov(fit)$cond
  result <- list(
    formula = FORMULA, dispformula = dispformula, method = if (reml) "REML" else "ML",
    logLik = as.numeric(logLik(fit)), fixef = as.list(fixef(fit)$cond),
    se = as.list(sqrt(diag(conditional))),
    vcov = matrix_of(conditional), se_full = as.list(sqrt(diag(full))), positive_definite = fit$sdr$pdHess,
    convergence = fit$fit$message, iterations = fit$fit$iterations,
    max_gradient = max(abs(fit$obj$gr(fit$fit$par))),
    tightened = tightened(fit, DISPERSION[[dispformula]])
  )
  cat(sprintf("%-4s %-12s default %.9f (gradient %.1e), tightened %.9f (gradient %.1e)\n",
              result$method, dispformula, result$logLik, result$max_gradient,
              result$tightened$logLik, result$tightened$max_gradient))
  print(rbind(default = unlist(result$se), tightened = result$tightened$se[1:5]), digits = 8)
  result
}

main <- function(out) {
  s <- stack_equations(read.csv(file.path(Sys.getenv("MLMED_DATA"), "ml_sim.csv")))
  fits <- list()
  for (reml in c(TRUE, FALSE)) {
    fits <- c(fits, lapply(names(DISPERSION), function(dispformula) fit_one(s, dispformula, reml)))
  }
  packages <- c("glmmTMB", "TMB")
  versions <- paste(packages, vapply(packages, function(p) as.character(packageVersion(p)), ""))
  result <- list(
    software = sprintf("%s, R %s", paste(versions, collapse = ", "), getRversion()), date = format(Sys.Date()),
    generator = "validation/generate/joint.R", data = "ml_sim",
    optimizer = "glmmTMBControl() defaults: nlminb, iter.max 300, eval.max 400, no other setting",
    tightening = paste("none is needed for the log-likelihood; 'tightened' adds Newton steps on glmmTMB's criterion and",
                       "takes the Hessian by Richardson extrapolation of its gradient"),
    fits = fits
  )
  write_json(result, file.path(out, "joint_glmmtmb.json"), digits = NA, auto_unbox = TRUE, pretty = TRUE)
}

main(c(commandArgs(TRUE), file.path("validation", "reference"))[1])
